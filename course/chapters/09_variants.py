# %% [markdown] lang="en"
# # 9 · Variants
#
# LoRA is $W + \frac{\alpha}{r} B A$. Since 2021 many people have changed one part of this formula. This chapter takes five of
# them. Each gets one formula and one small experiment: what is changed, what for, and what it costs. Then LoRA leaves text behind, and looks at pictures.
#
# | variant | changes | asks |
# |---|---|---|
# | QLoRA | $W$ | must the frozen weights be stored so exactly? |
# | AdaLoRA | $r$ | must every layer get the same rank? |
# | LoRA+ | the learning rate | must $A$ and $B$ move at the same speed? |
# | rsLoRA | $\frac{\alpha}{r}$ | is this the right scale for large ranks? |
# | several adapters | the number of pairs $B A$ | one base, many tasks? |

# %% [markdown] lang="zh"
# # 9 · 各种变体
#
# LoRA 就是 $W + \frac{\alpha}{r} B A$。2021 年以来，不少人改动过这个公式的某一部分。本章挑出五种，每种一个公式、一个小实验：改了什么，为了什么，代价是什么。然后 LoRA 走出文字，去看图片。
#
# | 变体 | 改动之处 | 它问的问题 |
# |---|---|---|
# | QLoRA | $W$ | 冻结的权重非得存得那么精确吗？ |
# | AdaLoRA | $r$ | 每一层非得用同样的秩吗？ |
# | LoRA+ | 学习率 | $A$ 和 $B$ 非得走得一样快吗？ |
# | rsLoRA | $\frac{\alpha}{r}$ | 秩很大时，这个缩放还合适吗？ |
# | 多个适配器 | $B A$ 的对数 | 一个基座，能做很多任务吗？ |

# %%
import sys
from pathlib import Path

for folder in [Path.cwd(), *Path.cwd().parents]:  # lorafy's folder: this one, or one further up
    if (folder / "course" / "chapters").is_dir():
        sys.path.insert(0, str(folder))
        break

from course.language import start

LANGUAGE = "en"
say, label = start(LANGUAGE)

# %%
import copy

import matplotlib.pyplot as plt
import torch
from safetensors import safe_open
from torch import nn

from lorafy.models.embedded import resolve
from lorafy.report.style import BLUE, GREEN, MUTED, VERMILLION
from lorafy.scratch import LinearWithLoRA

# %% [markdown] lang="en"
# ## 9.1 QLoRA: the frozen weights in 4 bits
#
# LoRA trains few numbers, but all of $W$ still lies in memory. A model with 7 billion weights in 16 bits fills 14 GB before the first
# step. But nobody changes $W$ any more. So QLoRA (Dettmers et al. 2023) stores it coarsely, in 4 bits each, and computes
#
# $$y = \mathrm{dequant}(W_{4\,\mathrm{bit}})\, x + \frac{\alpha}{r} B A x$$
#
# $A$ and $B$ keep their full precision: they must be able to move in small steps.
#
# 4 bits can name 16 values. Which 16? Trained weights look like a normal distribution, many small ones and few large ones. So **NF4** (4-bit
# NormalFloat) puts its values where the weights are: at the quantiles of the normal distribution.

# %% [markdown] lang="zh"
# ## 9.1 QLoRA：把冻结的权重存成 4 位
#
# LoRA 只训练很少的数，可是整个 $W$ 还躺在内存里。70 亿个权重，每个 16 位，第一步还没走就占了 14 GB。但是 $W$ 已经不再改动了。于是 QLoRA（Dettmers 等，2023）把它粗略地存起来，每个权重只用 4 位，计算时用
#
# $$y = \mathrm{dequant}(W_{4\,\mathrm{bit}})\, x + \frac{\alpha}{r} B A x$$
#
# $A$ 和 $B$ 保持原来的精度：它们要能一小步一小步地走。
#
# 4 位能表示 16 个值。选哪 16 个？训练好的权重大致服从正态分布：小的多，大的少。所以 **NF4**（4 位 NormalFloat）把取值放在权重多的地方，也就是正态分布的分位点上。

# %%
normal = torch.distributions.Normal(0.0, 1.0)
outermost = 0.9677083  # the largest quantile, as in the authors' code; the quantile 1 itself would be infinite
above = normal.icdf(torch.linspace(outermost, 0.5, 9)[:-1])  # eight values above zero, seven below, and zero
below = -normal.icdf(torch.linspace(outermost, 0.5, 8)[:-1])
nf4 = torch.cat([below, torch.zeros(1), above]).sort().values
nf4 = nf4 / nf4.max()
even = torch.linspace(-1, 1, 16)  # for comparison: 16 values, evenly spaced

with safe_open(Path(resolve("minilm")) / "model.safetensors", framework="pt") as file:
    W = file.get_tensor("encoder.layer.3.intermediate.dense.weight")

figure, axes = plt.subplots(figsize=(7.5, 3.3))
blocks = W.reshape(-1, 64)
scaled = (blocks / blocks.abs().amax(1, keepdim=True)).flatten()
axes.hist(scaled.numpy(), bins=101, density=True, color=MUTED, alpha=0.4)
axes.plot(nf4, torch.full((16,), -0.12), "|", color=BLUE, markersize=14, markeredgewidth=2, label="NF4")
axes.plot(
    even,
    torch.full((16,), -0.34),
    "|",
    color=VERMILLION,
    markersize=14,
    markeredgewidth=2,
    label=label(en="evenly spaced", zh="均匀分布"),
)
axes.set_xlabel(
    label(en="weight of MiniLM, divided by the largest of its block", zh="MiniLM 的权重，除以所在块的最大值")
)
axes.set_ylabel(label(en="density", zh="密度"))
axes.legend()
plt.show()

# %% [markdown] lang="en"
# The grey hill is a real weight matrix of MiniLM. The blue marks stand dense where the hill is high. (The spikes at
# both ends: in every block the largest weight becomes 1 or -1.)
#
# The weights are cut into **blocks** of 64. Each block stores its largest absolute value (one number), and for each weight the index of the nearest of the 16
# values. So one outlier spoils only its own block.

# %% [markdown] lang="zh"
# 灰色的小山是 MiniLM 的一个真实权重矩阵。蓝色刻度在山高的地方更密。（两端的尖峰：每一块里最大的权重都变成了 1 或 -1。）
#
# 权重每 64 个切成一**块**。每块存下绝对值的最大值（一个数），每个权重只存 16 个值里离它最近的那个的编号。这样，一个离群的大权重只会影响它自己那一块。


# %%
def quantise(weight, code, block_size=64):
    """Indices into `code`, one for each weight, and a scale for each block."""
    blocks = weight.reshape(-1, block_size)
    scales = blocks.abs().amax(1, keepdim=True)
    indices = (blocks / scales).unsqueeze(-1).sub(code).abs().argmin(-1)
    return indices, scales


def dequantise(indices, scales, code, shape):
    return (code[indices] * scales).view(shape)


for name, code in ((label(en="NF4", zh="NF4"), nf4), (label(en="evenly spaced", zh="均匀分布"), even)):
    restored = dequantise(*quantise(W, code), code, W.shape)
    error = ((restored - W).norm() / W.norm()).item()
    say(en=f"{name}: error {error:.1%} of the weight's norm", zh=f"{name}：误差为权重范数的 {error:.1%}")

bits = 4 + 32 / 64  # an index for each weight, and for each 64 of them a scale in float32
say(
    en=f"Bits for each weight: {bits:g} instead of 32, so the matrix takes {W.numel() * bits / 8 / 1024:.0f} KiB, not {W.numel() * 4 / 1024:.0f}.",
    zh=f"每个权重 {bits:g} 位，而不是 32 位；这个矩阵占 {W.numel() * bits / 8 / 1024:.0f} KiB，而不是 {W.numel() * 4 / 1024:.0f} KiB。",
)

# %% [markdown] lang="en"
# And the training? We give the layer a new task, a secret change of rank 4, and train LoRA once on the exact $W$, once on the 4-bit $W$.

# %% [markdown] lang="zh"
# 训练起来怎么样？给这一层一个新任务（秩为 4 的秘密改变），分别在精确的 $W$ 和 4 位的 $W$ 上训练 LoRA。


# %%
def frozen(weight):
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data.copy_(weight)
    return linear.requires_grad_(False)


torch.manual_seed(0)
x = torch.randn(512, W.shape[1])
secret = torch.randn(W.shape[0], 4) @ torch.randn(4, W.shape[1]) * W.std() / 4
y = x @ (W + secret).T
bases = {
    label(en="exact $W$ (32 bits)", zh="精确的 $W$（32 位）"): (W, BLUE),
    label(en="4-bit $W$ (QLoRA)", zh="4 位的 $W$（QLoRA）"): (dequantise(*quantise(W, nf4), nf4, W.shape), VERMILLION),
}
figure, axes = plt.subplots(figsize=(7, 3.3))
for name, (weight, color) in bases.items():
    layer = LinearWithLoRA(frozen(weight), rank=8, alpha=16, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(layer.lora.parameters(), lr=5e-3)
    errors = []
    for step in range(40):
        rows = slice(128 * (step % 4), 128 * (step % 4) + 128)
        error = (layer(x[rows]) - y[rows]).square().mean() / y.square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    axes.plot(errors, color=color, label=name)
    say(en=f"{name}: error {errors[0]:.3f} -> {errors[-1]:.4f}", zh=f"{name}：误差 {errors[0]:.3f} -> {errors[-1]:.4f}")
axes.set_ylim(bottom=0)
axes.set_xlabel(label(en="step", zh="步数"))
axes.set_ylabel(label(en="error (share of the target's size)", zh="误差（占目标大小的比例）"))
axes.legend()
plt.show()

# %% [markdown] lang="en"
# Both learn the new task. The rounding of $W$ stays behind as a small error: it has full rank, so LoRA can mend only a part of it. The gradient passes *through* the
# dequantised $W$ to the layers below, and nothing is ever written back to $W$.
#
# What QLoRA saves is memory, not time: dequantising is extra work. (The paper also quantises the scales themselves, "double quantization", and moves Adam's state out of the
# GPU when memory is short, "paged optimizers".) In lorafy it is one line of the recipe, `model: {quantise: nf4}`, which needs `pip install bitsandbytes`.
#
# LoRA could also start with what the rounding lost, instead of starting at zero. That is LoftQ (Li et al. 2023): $A$ and $B$ begin as the best approximation of rank $r$ of $W - \mathrm{dequant}(W_{4\,\mathrm{bit}})$,
# which the singular value decomposition gives. How much of it fits into rank 8?

# %% [markdown] lang="zh"
# 两者都学会了新任务。$W$ 的舍入留下一点误差：它是满秩的，LoRA 只能补上一部分。梯度*穿过*反量化后的 $W$ 传到下面的层，但从不写回 $W$。
#
# QLoRA 省的是内存，不是时间：反量化是额外的工作。（论文还把缩放系数本身也量化，叫"双重量化"；显存紧张时把 Adam 的状态移出 GPU，叫"分页优化器"。）在 lorafy 里，它只是配方里的一行：`model: {quantise: nf4}`，需要先 `pip install bitsandbytes`。
#
# LoRA 也可以不从零开始，而从舍入丢掉的那部分开始。这就是 LoftQ（Li 等，2023）：$A$ 和 $B$ 的初值，是 $W - \mathrm{dequant}(W_{4\,\mathrm{bit}})$ 的最佳秩 $r$ 近似，由奇异值分解得到。秩 8 能装下多少？

# %%
lost = W - dequantise(*quantise(W, nf4), nf4, W.shape)
for name, matrix in (
    (label(en="what rounding lost", zh="舍入丢掉的部分"), lost),
    (label(en="the secret change", zh="秘密的改变"), secret),
):
    squares = torch.linalg.svdvals(matrix).square()
    share = (squares[:8].sum() / squares.sum()).item()
    say(en=f"{name}: rank 8 holds {share:.1%} of its squares", zh=f"{name}：秩 8 能装下其平方和的 {share:.1%}")

# %% [markdown] lang="en"
# Little: rounding is nearly noise, and noise has no few directions that matter. LoftQ mends a little of it; the rest stays.

# %% [markdown] lang="zh"
# 很少：舍入误差近乎噪声，而噪声没有少数几个主要方向。LoftQ 补上一点，其余的仍在。

# %% [markdown] lang="en"
# ## 9.2 AdaLoRA: each layer the rank that it needs
#
# With LoRA every layer gets the same $r$. But some layers have much to learn and others nothing. AdaLoRA (Zhang et al. 2023) writes the
# change like a singular value decomposition,
#
# $$W' = W + P \Lambda Q, \qquad \Lambda = \mathrm{diag}(\lambda_1, \dots, \lambda_r)$$
#
# and keeps $P$ and $Q$ nearly orthogonal by a small penalty. Each $\lambda_i$ gets an importance (from its size and its gradient). Every few steps the least
# important ones *of the whole model* are set to zero, until a budget is met. What one layer loses, another may keep.
#
# The experiment: three layers, and we know what each must learn: a change of rank 6, of rank 2, and nothing at all. AdaLoRA begins with rank 8 everywhere and may keep 3 a
# layer on average. It is told only the data.

# %% [markdown] lang="zh"
# ## 9.2 AdaLoRA：按需给每层分配秩
#
# 普通 LoRA 给每一层同样的 $r$。可是有的层要学很多，有的层什么都不用学。AdaLoRA（Zhang 等，2023）把改变量写成奇异值分解的样子：
#
# $$W' = W + P \Lambda Q, \qquad \Lambda = \mathrm{diag}(\lambda_1, \dots, \lambda_r)$$
#
# 并用一个小的惩罚项让 $P$、$Q$ 接近正交。每个 $\lambda_i$ 都有一个重要性（由它的大小和梯度算出）。每隔几步，把*整个模型*里最不重要的那些置零，直到满足预算。一层让出来的，另一层可以留着。
#
# 实验：三个层，各自要学什么我们是知道的：一个要学秩 6 的改变，一个秩 2，还有一个什么都不用学。AdaLoRA 一开始每层的秩都是 8，最后平均每层只许留下 3 个。它能看到的只有数据。

# %%
from peft import AdaLoraConfig, get_peft_model

NEEDED = {"first": 6, "second": 2, "third": 0}


class ThreeLayers(nn.Module):
    """Three layers side by side, so that each has a task of its own."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(32, 32, bias=False)
        self.second = nn.Linear(32, 32, bias=False)
        self.third = nn.Linear(32, 32, bias=False)

    def forward(self, x):
        return torch.stack([self.first(x), self.second(x), self.third(x)])


torch.manual_seed(0)
base = ThreeLayers()
wanted = copy.deepcopy(base)
for name, rank in NEEDED.items():
    wanted.get_submodule(name).weight.data += torch.randn(32, rank) @ torch.randn(rank, 32) / 16
x = torch.randn(256, 32)
y = wanted(x).detach()


def not_orthogonal(model):
    """How far P's columns and Q's rows (peft: lora_B, lora_A) are from being orthogonal."""
    matrices = [p if "lora_A" in n else p.T for n, p in model.named_parameters() if "lora_A" in n or "lora_B" in n]
    return sum((matrix @ matrix.T - torch.eye(len(matrix))).norm() for matrix in matrices)


NUM_STEPS = 300


def train_adalora(reallocate):
    """The rank of each layer after every fifth step, when ranks are reallocated."""
    torch.manual_seed(0)
    config = AdaLoraConfig(init_r=8, target_r=3, tinit=50, tfinal=100, deltaT=5, total_step=NUM_STEPS,
                           lora_alpha=16, target_modules=list(NEEDED))  # fmt: skip
    model = get_peft_model(copy.deepcopy(base), config)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    ranks = []
    for step in range(NUM_STEPS):
        loss = (model(x) - y).square().mean() + 0.01 * not_orthogonal(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if reallocate:
            model.base_model.update_and_allocate(step)
        if step % 5 == 0:  # in between, the optimizer may move a value again that was set to zero
            layers = [model.base_model.model.get_submodule(name) for name in NEEDED]
            ranks.append([int((layer.lora_E["default"].abs() > 0).sum()) for layer in layers])
    return ranks


ranks = train_adalora(reallocate=True)
figure, axes = plt.subplots(figsize=(7, 3.3))
for column, ((name, rank), color) in enumerate(zip(NEEDED.items(), (BLUE, VERMILLION, GREEN), strict=True)):
    text = label(en=f"{name} layer (needs {rank})", zh=f"第 {column + 1} 层（需要 {rank}）")
    axes.plot(range(0, NUM_STEPS, 5), [row[column] for row in ranks], color=color, label=text)
axes.set_xlabel(label(en="step", zh="步数"))
axes.set_ylabel(label(en="rank kept", zh="保留的秩"))
axes.legend()
plt.show()
say(
    en=f"Ranks at the end: {ranks[-1]}; needed: {list(NEEDED.values())}.",
    zh=f"最后的秩：{ranks[-1]}；需要的秩：{list(NEEDED.values())}。",
)

# %% [markdown] lang="en"
# It found out by itself who needs how much. (The third layer has nothing to learn: its $\lambda$ never leave zero.)
#
# One line in the loop above is easily forgotten: `update_and_allocate`. peft cannot call it for you (lorafy does, with `adapter: {method: adalora}`). Without it the code runs, the loss falls, and nothing is
# reallocated at all:

# %% [markdown] lang="zh"
# 谁需要多少，它自己找出来了。（第三层没有东西可学，它的 $\lambda$ 一直是零。）
#
# 上面的循环里有一行很容易忘：`update_and_allocate`。peft 没法替你调用它（lorafy 会替你调用：`adapter: {method: adalora}`）。忘了它，代码照跑，损失照降，可是秩根本没有重新分配：

# %%
forgotten = train_adalora(reallocate=False)
say(en=f"Ranks at the end, without that line: {forgotten[-1]}.", zh=f"没有那一行时，最后的秩：{forgotten[-1]}。")

# %% [markdown] lang="en"
# ## 9.3 LoRA+: a faster B
#
# $A$ starts random, $B$ starts at zero. LoRA+ (Hayou et al. 2024) shows that in wide layers the two should not move at the same speed, and changes one line of the training:
#
# $$\eta_B = \lambda\, \eta_A, \qquad \lambda > 1$$
#
# $\eta$ is the learning rate, and $\lambda$ is often 16. In torch these are two groups in one optimizer. (peft has it ready: `peft.optimizers.create_loraplus_optimizer`.)

# %% [markdown] lang="zh"
# ## 9.3 LoRA+：让 B 走快一点
#
# $A$ 从随机数开始，$B$ 从零开始。LoRA+（Hayou 等，2024）指出，在很宽的层里，两者不该走得一样快，并且只改训练中的一行：
#
# $$\eta_B = \lambda\, \eta_A, \qquad \lambda > 1$$
#
# $\eta$ 是学习率，$\lambda$ 常取 16。在 torch 里，这就是同一个优化器的两个参数组。（peft 里有现成的：`peft.optimizers.create_loraplus_optimizer`。）

# %%
width = 256
torch.manual_seed(0)
W0 = torch.randn(width, width) / width**0.5
secret = torch.randn(width, 4) @ torch.randn(4, width) / width / 2
x = torch.randn(256, width)
y = x @ (W0 + secret).T


def fit(layer, groups, steps):
    """Trains and returns how much of the base's error is left."""
    optimizer = torch.optim.Adam(groups)
    for _ in range(steps):
        error = (layer(x) - y).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    return (error / (x @ secret.T).square().mean()).item()


def fit_plus(rate, ratio):
    layer = LinearWithLoRA(frozen(W0), rank=8, alpha=16, generator=torch.Generator().manual_seed(0))
    groups = [{"params": [layer.lora.lora_A], "lr": rate}, {"params": [layer.lora.lora_B], "lr": ratio * rate}]
    return fit(layer, groups, 40)


rates = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
figure, axes = plt.subplots(figsize=(7, 3.3))
for ratio, color in ((1, BLUE), (4, GREEN), (16, VERMILLION)):
    axes.plot(rates, [fit_plus(rate, ratio) for rate in rates], color=color, marker="o", label=rf"$\lambda$ = {ratio}")
axes.set_xscale("log")
axes.set_ylim(0, 1.1)
axes.set_xlabel(label(en="learning rate of $A$", zh="$A$ 的学习率"))
axes.set_ylabel(label(en="error left after 40 steps", zh="40 步后剩余的误差"))
axes.legend()
plt.show()

# %% [markdown] lang="en"
# Read it honestly. At small rates a faster $B$ gets further: with $B$ at zero, it is $B$ that has to leave first. But a larger learning rate for both does it as well, and with a large $\lambda$ the good range
# ends earlier. So compare LoRA+ with LoRA at *its own* best learning rate. The paper, which does that on large models, reports one to two points of accuracy and up to twice the speed; in this small
# layer there is nothing to gain.

# %% [markdown] lang="zh"
# 要老实地读这张图。学习率小的时候，$B$ 快一点确实走得更远：$B$ 从零出发，先动起来的必须是它。可是把两者的学习率一起调大也能做到；而且 $\lambda$ 大时，合适的范围结束得更早。所以比较 LoRA+ 和 LoRA 时，要让 LoRA 用*它自己*最好的学习率。论文在大模型上这样比较，报告准确率提高一到两个百分点，速度最多快一倍；在这个小小的层里，并没有什么好处。

# %% [markdown] lang="en"
# ## 9.4 rsLoRA: another scale
#
# rsLoRA (Kalajdzievski 2023) changes one sign of the formula, a root:
#
# $$W' = W + \frac{\alpha}{\sqrt{r}} B A$$
#
# How large is the change of the weight after ten small steps? The parts that the $r$ pairs of columns and rows add up to are mostly random at first, and random parts add up like $\sqrt{r}$. So $\frac{\alpha}{r}$ makes the change
# smaller and smaller as $r$ grows, and $\frac{\alpha}{\sqrt{r}}$ keeps its size nearly the same:

# %% [markdown] lang="zh"
# ## 9.4 rsLoRA：换一种缩放
#
# rsLoRA（Kalajdzievski，2023）只在公式里加了一个根号：
#
# $$W' = W + \frac{\alpha}{\sqrt{r}} B A$$
#
# 走十小步之后，权重的改变有多大？$r$ 对行列各自的贡献，起初大多是随机的，而随机的量相加时按 $\sqrt{r}$ 增长。所以用 $\frac{\alpha}{r}$，秩越大改变就越小；用 $\frac{\alpha}{\sqrt{r}}$，大小几乎不变：

# %%
for rank in (4, 16, 64):
    sizes = []
    for scale in (32 / rank, 8 / rank**0.5):  # alpha 32 and 8: the same scale at r = 16
        layer = LinearWithLoRA(frozen(W0), rank, scale, scaling="plain", generator=torch.Generator().manual_seed(0))
        fit(layer, [{"params": list(layer.lora.parameters()), "lr": 1e-4}], 10)
        sizes.append(layer.lora.update().norm().item())
    say(
        en=f"r = {rank:2}: size of the change {sizes[0]:.3f} with alpha / r, {sizes[1]:.3f} with alpha / sqrt(r)",
        zh=f"r = {rank:2}：改变的大小，用 alpha / r 时为 {sizes[0]:.3f}，用 alpha / sqrt(r) 时为 {sizes[1]:.3f}",
    )

# %% [markdown] lang="en"
# Chapter 8 measured something else, how far the *error* falls in the first steps, and there $\frac{\alpha}{r}$ made all ranks equal. Both are true: the useful part of the change, in which all pairs pull together, adds up
# like $r$, the random part like $\sqrt{r}$. For ranks up to about 64 either works, if you search the learning rate. In peft: `LoraConfig(use_rslora=True)`.

# %% [markdown] lang="zh"
# 第 8 章量的是另一件事：头几步里*误差*降了多少，那时 $\frac{\alpha}{r}$ 让各个秩都一样。两者都对：改变中有用的部分，各对同向用力，按 $r$ 增长；随机的部分按 $\sqrt{r}$ 增长。秩在 64 以内，只要认真搜索学习率，哪种都行。在 peft 里：`LoraConfig(use_rslora=True)`。

# %% [markdown] lang="en"
# ## 9.5 Several adapters on one base
#
# The base never changes, and an adapter is small. So one base in memory can serve many tasks, each with its own pair:
#
# $$W' = W + \sum_i w_i \frac{\alpha_i}{r_i} B_i A_i$$
#
# Choose one task: its $w_i$ is 1, the others are 0. Or mix. peft keeps adapters by name. We train two on the three layers from above: "six" learns the first layer's task, "two" the second's.

# %% [markdown] lang="zh"
# ## 9.5 一个基座，多个适配器
#
# 基座永远不变，适配器又很小。所以内存里放一个基座，就能服务很多任务，每个任务有自己的一对矩阵：
#
# $$W' = W + \sum_i w_i \frac{\alpha_i}{r_i} B_i A_i$$
#
# 选定一个任务：它的 $w_i$ 取 1，其余取 0。也可以混合。peft 按名字保存适配器。我们在上面那三个层上训练两个："six" 学第一层的任务，"two" 学第二层的任务。

# %%
from peft import LoraConfig

x = torch.randn(256, 32)
tasks = {}
for task, name in (("six", "first"), ("two", "second")):
    only_this = copy.deepcopy(base)
    only_this.load_state_dict({f"{name}.weight": wanted.get_submodule(name).weight}, strict=False)
    tasks[task] = only_this(x).detach()

settings = LoraConfig(r=8, lora_alpha=16, target_modules=list(NEEDED))
model = get_peft_model(copy.deepcopy(base), settings, adapter_name="six")
model.add_adapter("two", settings)
for task, y in tasks.items():
    model.set_adapter(task)  # from now on this one is used, and only this one is trained
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(150):
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def errors():
    """Mean squared error on each of the two tasks."""
    with torch.no_grad():
        return [(model(x) - y).square().mean().item() for y in tasks.values()]


say(en="error on the tasks    six      two", zh="在各任务上的误差      six      two")
for task in tasks:
    model.set_adapter(task)
    say(
        en="adapter {:12} {:.5f}  {:.5f}".format(task, *errors()),
        zh="适配器 {:12} {:.5f}  {:.5f}".format(task, *errors()),
    )
with model.disable_adapter():
    say(
        en="no adapter           {:.5f}  {:.5f}".format(*errors()),
        zh="不用适配器           {:.5f}  {:.5f}".format(*errors()),
    )
    same = torch.equal(model(x), base(x))
say(en=f"Without adapter, is it the base, bit for bit? {same}.", zh=f"不用适配器时，与基座逐位相同吗？{same}。")

# %% [markdown] lang="en"
# Each adapter is good at its own task, and switching costs nothing. Now both at once. There is a trap. $B_1 A_1 + B_2 A_2$ is *not* $(B_1 + B_2)(A_1 + A_2)$: the second also has $B_1 A_2$ and $B_2 A_1$, which
# nobody trained. The right sum is exact if the matrices are put *side by side*, $[B_1\ B_2]$ and $A_1$ above $A_2$ (rank $r_1 + r_2$). peft calls this `cat`; adding the matrices themselves is `linear`.

# %% [markdown] lang="zh"
# 每个适配器都擅长自己的任务，切换不花任何代价。现在两个一起用。这里有个陷阱：$B_1 A_1 + B_2 A_2$ *不等于* $(B_1 + B_2)(A_1 + A_2)$，后者多出 $B_1 A_2$ 和 $B_2 A_1$，这两项谁也没训练过。要精确地相加，应当把矩阵*并排放*：$[B_1\ B_2]$，$A_1$ 放在 $A_2$ 上面（秩为 $r_1 + r_2$）。peft 把这叫 `cat`；把矩阵本身相加叫 `linear`。

# %%
for kind in ("cat", "linear"):
    model.add_weighted_adapter(["six", "two"], [1.0, 1.0], adapter_name=kind, combination_type=kind)
with torch.no_grad():
    changes = []
    for task in tasks:
        model.set_adapter(task)
        changes.append(model(x) - base(x))
    exact = base(x) + sum(changes)
    for kind in ("cat", "linear"):
        model.set_adapter(kind)
        off = ((model(x) - exact).norm() / sum(changes).norm()).item()
        say(
            en=f"{kind:7} differs from the sum of both changes by {off:.1e} of its size",
            zh=f"{kind:7} 与两个改变之和相差 {off:.1e}（占其大小的比例）",
        )

# %% [markdown] lang="en"
# Even the exact sum is only a good model if the tasks do not get in each other's way. Here each adapter changed layers of its own; on real tasks, measure the mixture before you trust it.
#
# ## 9.6 Pictures: a vision-language model
#
# All models so far read text. A vision-language model, such as Qwen3-VL, also looks at pictures. It has three parts:
#
# | part | what it does |
# |---|---|
# | vision | reads a picture as a row of patches of 16 × 16 pixels, like words of a text |
# | merger | makes one *token* of every 2 × 2 patches, as long as a word's embedding |
# | language | reads words and picture tokens in one row, and writes the answer |
#
# So a picture is nothing but some more tokens in the question. How many, its size says:
#
# $$n = \frac{\text{height}}{32} \cdot \frac{\text{width}}{32}$$
#
# The size is first rounded to multiples of 32 and, if the picture is too large, made smaller: 512 × 512 pixels are 256 tokens, a photo of 12 megapixels would be more than 11,000.

# %% [markdown] lang="zh"
# 即使是精确的和，也只有在任务互不干扰时才是好模型。这里两个适配器改的是不同的层；真实任务上混合之后，要先测量，再相信。
#
# ## 9.6 图片：视觉语言模型
#
# 到目前为止，模型读的都是文字。视觉语言模型（例如 Qwen3-VL）还会看图。它有三个部分：
#
# | 部分 | 做什么 |
# |---|---|
# | vision（视觉塔） | 把图片当成一串 16 × 16 像素的小块来读，就像读一串词 |
# | merger（合并层） | 把每 2 × 2 个小块变成一个*词元*，长度与词的嵌入相同 |
# | language（语言模型） | 把词和图片词元放在同一行里读，然后写出回答 |
#
# 所以一张图片不过是问题里多出来的一些词元。有多少个，由尺寸决定：
#
# $$n = \frac{\text{height}}{32} \cdot \frac{\text{width}}{32}$$
#
# 尺寸先取整到 32 的倍数，太大的图片先缩小：512 × 512 像素是 256 个词元，一张 1200 万像素的照片会超过 11,000 个。

# %%
from PIL import Image, ImageDraw
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

PICTURES = {
    "red circle": "红色的圆",
    "red square": "红色的方块",
    "blue circle": "蓝色的圆",
    "blue square": "蓝色的方块",
}


def draw(colour, shape):
    picture = Image.new("RGB", (96, 64), "white")
    pen = ImageDraw.Draw(picture)
    (pen.ellipse if shape == "circle" else pen.rectangle)((26, 10, 70, 54), fill=colour)
    return picture


pictures = [draw(*name.split()) for name in PICTURES]
half = [0.5] * 3
size = {"shortest_edge": 32 * 32, "longest_edge": 512 * 512}  # the least and the most pixels
processor = Qwen2VLImageProcessorPil(patch_size=16, image_mean=half, image_std=half, size=size)
made = processor(images=pictures, return_tensors="pt")
grids = made["image_grid_thw"]  # frames, rows and columns of patches
patches = made["pixel_values"].view(len(pictures), -1, made["pixel_values"].shape[-1])
num_tokens = int(grids[0].prod()) // 4

figure, axes = plt.subplots(figsize=(4.5, 3.2))
axes.imshow(pictures[0])
for step, width, color in ((16, 0.7, MUTED), (32, 2.0, BLUE)):
    axes.vlines(range(step, 96, step), -0.5, 63.5, color=color, linewidth=width)
    axes.hlines(range(step, 64, step), -0.5, 95.5, color=color, linewidth=width)
axes.set_title(label(en="thin: patches; thick: tokens", zh="细线：小块；粗线：词元"))
axes.set_axis_off()
plt.show()
say(
    en=f"96 x 64 pixels: {patches.shape[1]} patches, {num_tokens} tokens.",
    zh=f"96 x 64 像素：{patches.shape[1]} 个小块，{num_tokens} 个词元。",
)

# %% [markdown] lang="en"
# Now a very small Qwen3-VL, with random weights. The question is always the same, "what is it?", one token. So the text cannot give the answer away: whoever only reads is right once in four times. We train everything
# (a model without knowledge has nothing that LoRA could adapt), and only the answer is a target, never a token of the picture.

# %% [markdown] lang="zh"
# 现在来一个很小的 Qwen3-VL，权重随机。问题永远是同一个（"这是什么？"，一个词元），所以文字泄露不了答案：只读文字的，四次里只能对一次。我们训练全部权重（什么都不懂的模型，没有可供 LoRA 调整的东西），而且只有答案参与训练，图片的词元从不参与。

# %%
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

START, END, PICTURE, VIDEO, ASK, FIRST_ANSWER = range(6)  # the whole vocabulary, and four answers
rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
shape = {"hidden_size": 32, "intermediate_size": 64}
vision = {"depth": 2, "num_heads": 2, "out_hidden_size": 32, "num_position_embeddings": 64}
heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
words = {"vocab_size": 9, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
config = Qwen3VLConfig(
    vision_config=shape | vision | {"deepstack_visual_indexes": [0]},
    text_config=shape | heads | words | {"rope_parameters": rope},
    vision_start_token_id=START,
    vision_end_token_id=END,
    image_token_id=PICTURE,
    video_token_id=VIDEO,
    tie_word_embeddings=True,
)
torch.manual_seed(0)
seeing = Qwen3VLForConditionalGeneration(config)
question = torch.tensor([[START, *[PICTURE] * num_tokens, END, ASK]] * len(pictures))


def answers(order):
    """Logits of the four answers; the question of row i shows the picture order[i]."""
    shown = {"pixel_values": patches[order].flatten(0, 1), "image_grid_thw": grids[order]}
    kinds = (question == PICTURE).int()  # 1 where a token is a picture's
    output = seeing(input_ids=question, mm_token_type_ids=kinds, use_cache=False, **shown)
    return output.logits[:, -1, FIRST_ANSWER:]


right = torch.arange(len(pictures))
optimizer = torch.optim.Adam(seeing.parameters(), lr=3e-3)
for _ in range(100):
    loss = nn.functional.cross_entropy(answers(right), right)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

sizes = dict.fromkeys(("vision", "merger", "language"), 0)
for name, parameter in seeing.named_parameters():
    sizes["merger" if "merger" in name else "vision" if ".visual." in name else "language"] += parameter.numel()
say(en=f"Parameters by part: {sizes}", zh=f"各部分的参数量：{sizes}")
say(en=f"Loss after 100 steps: {loss.item():.3f}", zh=f"100 步之后的损失：{loss.item():.3f}")

# %% [markdown] lang="en"
# Does it look, or did it learn the order of the rows? There is one test that every vision-language model should pass: show each question the *wrong* picture. A model that looks follows the picture.

# %% [markdown] lang="zh"
# 它真的在看，还是只记住了行的顺序？有一个测试，每个视觉语言模型都应该通过：给每个问题配上*别的*图片。真正在看的模型，会跟着图片走。

# %%
shifted = right.roll(-1)
with torch.no_grad():
    own, other = answers(right).argmax(1), answers(shifted).argmax(1)
names = list(PICTURES)
for row, name in enumerate(names):
    said = names[other[row]]
    say(
        en=f"shown a {names[shifted[row]]} instead of a {name}: {said}",
        zh=f"把{PICTURES[name]}换成{PICTURES[names[shifted[row]]]}：回答{PICTURES[said]}",
    )
say(
    en=f"Right with their own pictures: {(own == right).sum()} of 4; by the old labels, pictures exchanged: {(other == right).sum()} of 4.",
    zh=f"用自己的图片：4 次答对 {(own == right).sum()} 次；换了图片、仍按原来的答案算：4 次答对 {(other == right).sum()} 次。",
)

# %% [markdown] lang="en"
# That is a good sign: with other pictures nothing is right any more. Make this test with your own data too. In the set that lorafy is tested with, half of the questions stand there only once, so a model that never looks could answer
# half of them.
#
# With a real model you do not train everything. The usual choice is LoRA on the *language* part alone: the tower has seen millions of pictures, and what it makes of a picture can then be computed once and kept. Beware of names:
# `qkv` and `proj` are layers of the tower, and a list such as `gate_proj`, `up_proj` hits the tower of Qwen2.5-VL too. So one chooses by part. In lorafy, with your own `pictures.jsonl` of rows such as
# `{"prompt": "What is it?", "completion": "A cat.", "image": "cat.jpg"}`:
#
# ```sh
# lorafy plan recipes/qwen3_vl.yaml data.train=pictures.jsonl       # which layers of which part; a row with its picture's place
# lorafy train recipes/qwen3_vl.yaml data.train=pictures.jsonl
# lorafy generate runs/qwen3_vl-1 --prompt "What is it?" --image cat.jpg
# lorafy chat runs/qwen3_vl-1                                       # /image cat.jpg, then your question
# ```
#
# ## 9.7 Which one should you take?
#
# In lorafy each of these is a line or two of the recipe:
#
# | variant | in the recipe |
# |---|---|
# | QLoRA, LoftQ | `model: {quantise: nf4}`, and for LoftQ `adapter: {method: loftq}` |
# | AdaLoRA | `adapter: {method: adalora}` |
# | LoRA+, rsLoRA | `adapter: {lr_ratio: 16}`, `adapter: {use_rslora: true}` |
# | DoRA: a trained length for each output of a layer | `adapter: {method: dora}` |
# | PiSSA, OLoRA: $A$ and $B$ start inside $W$ | `adapter: {method: pissa}`, `adapter: {method: olora}` |
# | several adapters | `adapters: {spam: runs/a-1, topic: runs/b-1}` |
#
# And which is the best? Papers answer with tables of their own. Ask your data instead: `lorafy compare` trains the methods that you name on the same rows and the same seed, and puts an interval around every figure.

# %% [markdown] lang="zh"
# 这是好现象：换了图片，就一个也对不上了。用你自己的数据也做一做这个测试。lorafy 测试所用的那套数据里，一半的问题只出现过一次，从不看图的模型也能答对一半。
#
# 真实的模型不必训练全部。通常只在*语言*部分加 LoRA：视觉塔已经看过上百万张图片，而且它对每张图片的计算结果可以只算一次，然后留着用。要当心名字：`qkv` 和 `proj` 是视觉塔里的层，而 `gate_proj`、`up_proj` 这样的列表也会命中 Qwen2.5-VL 的视觉塔。所以要按部分来选。在 lorafy 里，准备好自己的 `pictures.jsonl`，每行形如 `{"prompt": "这是什么？", "completion": "一只猫。", "image": "cat.jpg"}`：
#
# ```sh
# lorafy plan recipes/qwen3_vl.yaml data.train=pictures.jsonl       # 哪个部分的哪些层；一行数据，以及图片的位置
# lorafy train recipes/qwen3_vl.yaml data.train=pictures.jsonl
# lorafy generate runs/qwen3_vl-1 --prompt "这是什么？" --image cat.jpg
# lorafy chat runs/qwen3_vl-1                                       # 先输入 /image cat.jpg，再提问
# ```
#
# ## 9.7 该选哪一个？
#
# 在 lorafy 里，每一种都只是配方里的一两行：
#
# | 变体 | 配方里的写法 |
# |---|---|
# | QLoRA、LoftQ | `model: {quantise: nf4}`；LoftQ 再加 `adapter: {method: loftq}` |
# | AdaLoRA | `adapter: {method: adalora}` |
# | LoRA+、rsLoRA | `adapter: {lr_ratio: 16}`、`adapter: {use_rslora: true}` |
# | DoRA：每个输出多训练一个长度 | `adapter: {method: dora}` |
# | PiSSA、OLoRA：$A$ 和 $B$ 从 $W$ 内部开始 | `adapter: {method: pissa}`、`adapter: {method: olora}` |
# | 多个适配器 | `adapters: {spam: runs/a-1, topic: runs/b-1}` |
#
# 哪一个最好？每篇论文都有自己的表格。不如问问你自己的数据：`lorafy compare` 用同样的数据、同样的种子训练你点名的方法，并给每个数字画出区间。

# %%
import tempfile

from rich.console import Console

import lorafy

DATA = None  # your own file, or None for the messages that lorafy brings
data = DATA or str(Path(lorafy.__file__).parent / "demo" / "sms.csv")
runs = tempfile.mkdtemp()
recipe = {
    "model": {"path": "minilm"},
    "data": {"train": data},
    "train": {"max_steps": 30},
    "run": {"output_dir": runs},
}
found = lorafy.compare(recipe, methods=["lora", "lora+", "dora"], console=Console(quiet=True))

for row in found["rows"]:
    low, high = row["accuracy_interval"]
    say(
        en=f"{row['title']:8} accuracy {row['accuracy']:.1%} ({low:.1%} to {high:.1%}), {row['seconds']:.0f} s",
        zh=f"{row['title']:8} 准确率 {row['accuracy']:.1%}（{low:.1%} 到 {high:.1%}），{row['seconds']:.0f} 秒",
    )

picture = plt.imread(Path(found["directory"]) / "plots" / "compare.png")  # report.html beside it shows more
figure, axes = plt.subplots(figsize=(12, 12 * picture.shape[0] / picture.shape[1]))
axes.imshow(picture)
axes.set_axis_off()
plt.show()

# %% [markdown] lang="en"
# Look at the intervals before you look at the order: where they overlap, this data cannot tell the methods apart. More seeds tell more: `lorafy compare RECIPE --methods lora dora adalora --seeds 3` also takes the difference to LoRA seed by seed.
# What came out on SST-2, AG News and E2E, with three seeds, stands in `docs/methods.md`. In short: take LoRA. Take another method for a reason that you can name (memory: QLoRA), and measure whether it holds.
#
# ## Exercise
#
# QLoRA's scales cost 32 bits for each block of 64, half a bit for each weight. "Double quantization" stores the scales themselves in 8 bits, with one float32 for each 256 of them. How many bits for each
# weight then? And how many GB does it save on a model with 65 billion weights?

# %% [markdown] lang="zh"
# 先看区间，再看名次：区间重叠的地方，这些数据分不出方法的高下。多用几个种子能看得更清楚：`lorafy compare RECIPE --methods lora dora adalora --seeds 3` 还会逐个种子地算出与 LoRA 的差。
# 在 SST-2、AG News 和 E2E 上各用三个种子的结果，见 `docs/methods.md`。一句话：先用 LoRA。换别的方法，要有说得出的理由（例如内存：QLoRA），并且测一测这个理由是否成立。
#
# ## 练习
#
# QLoRA 的缩放系数，每 64 个权重一个，占 32 位，平均每个权重半位。"双重量化"把缩放系数也存成 8 位，每 256 个再配一个 float32。这样每个权重平均多少位？对 650 亿个权重的模型，能省多少 GB？

# %%
once = 32 / 64
twice = 8 / 64 + 32 / (64 * 256)
saved = (once - twice) * 65e9 / 8 / 1e9
say(
    en=f"{once:g} bits become {twice:.3f}; with the indices {4 + twice:.3f} bits for each weight. Saved: {saved:.1f} GB.",
    zh=f"{once:g} 位变成 {twice:.3f} 位；加上编号，每个权重 {4 + twice:.3f} 位。省下 {saved:.1f} GB。",
)

# %% [markdown] lang="en"
# ## Where to read on
#
# | read | for |
# |---|---|
# | Hu et al. 2021, *LoRA*, [arXiv 2106.09685](https://arxiv.org/abs/2106.09685) | the method: section 4; which matrices and which rank: section 7 |
# | Dettmers et al. 2023, *QLoRA*, [arXiv 2305.14314](https://arxiv.org/abs/2305.14314) | NF4, double quantization, and why LoRA goes on all linear layers |
# | Zhang et al. 2023, *AdaLoRA*, [arXiv 2303.10512](https://arxiv.org/abs/2303.10512) | importance and budget |
# | Kalajdzievski 2023, *rsLoRA*, [arXiv 2312.03732](https://arxiv.org/abs/2312.03732) | the scale for large ranks |
# | Hayou et al. 2024, *LoRA+*, [arXiv 2402.12354](https://arxiv.org/abs/2402.12354) | two learning rates |
# | Schulman et al. 2025, [*LoRA Without Regret*](https://thinkingmachines.ai/blog/lora/) | when LoRA equals full fine-tuning, and how to set it |
# | [peft's documentation](https://huggingface.co/docs/peft) | some forty further methods |
#
# You have come from a $2 \times 4$ matrix to quantised models and several adapters, and you have checked every step by a number. Keep that habit: it is worth more than any variant.

# %% [markdown] lang="zh"
# ## 接着读什么
#
# | 读什么 | 为什么 |
# |---|---|
# | Hu 等，2021，*LoRA*，[arXiv 2106.09685](https://arxiv.org/abs/2106.09685) | 方法：第 4 节；用在哪些矩阵、取多大的秩：第 7 节 |
# | Dettmers 等，2023，*QLoRA*，[arXiv 2305.14314](https://arxiv.org/abs/2305.14314) | NF4、双重量化，以及为什么 LoRA 要加在所有线性层上 |
# | Zhang 等，2023，*AdaLoRA*，[arXiv 2303.10512](https://arxiv.org/abs/2303.10512) | 重要性与预算 |
# | Kalajdzievski，2023，*rsLoRA*，[arXiv 2312.03732](https://arxiv.org/abs/2312.03732) | 秩很大时的缩放 |
# | Hayou 等，2024，*LoRA+*，[arXiv 2402.12354](https://arxiv.org/abs/2402.12354) | 两个学习率 |
# | Schulman 等，2025，[*LoRA Without Regret*](https://thinkingmachines.ai/blog/lora/) | LoRA 什么时候等于全量微调，怎样设置 |
# | [peft 的文档](https://huggingface.co/docs/peft) | 另外四十来种方法 |
#
# 从一个 $2 \times 4$ 的矩阵，到量化模型和多个适配器，你一路走来，每一步都用数字检验过。请保持这个习惯：它比任何变体都更有价值。
