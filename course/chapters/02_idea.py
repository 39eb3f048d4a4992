# %% [markdown] lang="en"
# # 2 · The idea and the algebra
#
# A pretrained model already knows a lot: which words belong together, how sentences are built. Fine-tuning changes it a
# little, so that it does one task well. LoRA (*low-rank adaptation*,
# [Hu et al. 2021](https://arxiv.org/abs/2106.09685)) asks: **if the change is little, why store it like something big?**
#
# In this chapter you will see what "low rank" means, why it saves so much, how LoRA starts, what `alpha` does, and, on a
# real model, whether real changes are of low rank at all.

# %% [markdown] lang="zh"
# # 2 · 思想与代数
#
# 预训练模型已经懂得很多：哪些词常在一起，句子怎样组成。微调只是稍微改变它，让它做好某一项任务。LoRA（低秩适配，*low-rank adaptation*，[Hu et al. 2021](https://arxiv.org/abs/2106.09685)）问了一个问题：**既然改变很小，为什么要像存大东西那样去存它？**
#
# 这一章你会看到：什么叫"低秩"，为什么它能省这么多，LoRA 怎样起步，`alpha` 起什么作用；最后在一个真实的模型上检验：真实的改变到底是不是低秩的。

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

# %% [markdown] lang="en"
# ## 2.1 A change is a matrix
#
# A linear layer holds a weight matrix $W$ with $d_{out}$ rows and $d_{in}$ columns. It turns a vector $x$ of $d_{in}$
# numbers into $Wx$ with $d_{out}$ numbers. After fine-tuning, $W$ has become
#
# $$W' = W + \Delta W$$
#
# $\Delta W$ is **the change**, a matrix as large as $W$ itself. Full fine-tuning trains every number of it. LoRA writes
# it as a product of two thin matrices instead, and freezes $W$:
#
# $$\Delta W = \frac{\alpha}{r}\, B A, \qquad B \in \mathbb{R}^{d_{out} \times r}, \quad A \in \mathbb{R}^{r \times d_{in}}$$
#
# The number $r$ is the **rank**, usually between 4 and 64. $\alpha$ is a factor that we come to in section 2.6. Only $A$
# and $B$ are trained (paper, section 4.1).

# %% [markdown] lang="zh"
# ## 2.1 改变也是一个矩阵
#
# 线性层里有一个权重矩阵 $W$，共 $d_{out}$ 行、$d_{in}$ 列。它把含 $d_{in}$ 个数的向量 $x$ 变成含 $d_{out}$ 个数的 $Wx$。微调之后，$W$ 变成了
#
# $$W' = W + \Delta W$$
#
# $\Delta W$ 就是**改变量**，它和 $W$ 一样大。全量微调要训练其中的每一个数。LoRA 则冻结 $W$，把改变量写成两个"瘦"矩阵的乘积：
#
# $$\Delta W = \frac{\alpha}{r}\, B A, \qquad B \in \mathbb{R}^{d_{out} \times r}, \quad A \in \mathbb{R}^{r \times d_{in}}$$
#
# 其中 $r$ 叫**秩**，一般取 4 到 64；$\alpha$ 是缩放系数，2.6 节再讲。训练的只有 $A$ 和 $B$（见论文 4.1 节）。

# %% [markdown] lang="en"
# ## 2.2 What rank means
#
# Take one column and one row and multiply: you get a whole matrix. But a simple one: all its rows are multiples of the
# same row. It has **rank 1**. The sum of $r$ such matrices has rank $r$ at most, and that sum is exactly the product
# $BA$: column $i$ of $B$ times row $i$ of $A$, added up.

# %% [markdown] lang="zh"
# ## 2.2 什么是秩
#
# 取一列和一行相乘，就得到一整个矩阵。不过它很简单：每一行都是同一行的倍数。它的**秩是 1**。把 $r$ 个这样的矩阵加起来，秩最多是 $r$；而这个和恰好就是乘积 $BA$：用 $B$ 的第 $i$ 列乘 $A$ 的第 $i$ 行，再全部相加。

# %%
import matplotlib.pyplot as plt
import torch

torch.manual_seed(123)
B = torch.randn(12, 2)
A = torch.randn(2, 20)
one = torch.outer(B[:, 0], A[0])
two = torch.outer(B[:, 1], A[1])
random = torch.randn(12, 20)

say(
    en=f"The sum of the two is the product B A: {torch.allclose(one + two, B @ A)}.",
    zh=f"两者之和就是乘积 BA：{torch.allclose(one + two, B @ A)}。",
)

figure, panels = plt.subplots(1, 4, figsize=(10.5, 2.3))
names = [
    label(en="column 1 × row 1", zh="第 1 列 × 第 1 行"),
    label(en="column 2 × row 2", zh="第 2 列 × 第 2 行"),
    label(en="their sum, $BA$", zh="两者之和 $BA$"),
    label(en="random numbers", zh="随机数"),
]
for axes, matrix, name in zip(panels, [one, two, one + two, random], names, strict=True):
    axes.imshow(matrix, cmap="RdBu", vmin=-3, vmax=3)
    axes.set_title(name, fontsize=10)
    rank = int(torch.linalg.matrix_rank(matrix))
    axes.set_xlabel(label(en=f"rank {rank}", zh=f"秩 {rank}"))
    axes.set_xticks([])
    axes.set_yticks([])
plt.show()

# %% [markdown] lang="en"
# Red is negative, blue positive. In the first two pictures you see the same row again and again, stronger, weaker, or
# with its sign turned. In the last one every row is new: nothing can be saved there.

# %% [markdown] lang="zh"
# 红色为负，蓝色为正。前两幅图里，同一行反复出现，只是深浅不同或正负颠倒。最后一幅图里每一行都是新的：那里什么也省不下来。

# %% [markdown] lang="en"
# ## 2.3 What it saves
#
# A full change has $d_{out} \cdot d_{in}$ numbers, a change of rank $r$ only
#
# $$r \, (d_{in} + d_{out})$$
#
# Take a matrix of $4096 \times 4096$, as in language models of seven billion parameters.

# %% [markdown] lang="zh"
# ## 2.3 能省多少
#
# 完整的改变量有 $d_{out} \cdot d_{in}$ 个数，而秩为 $r$ 的改变量只有
#
# $$r \, (d_{in} + d_{out})$$
#
# 个数。以 $4096 \times 4096$ 的矩阵为例，七十亿参数的语言模型里就有这样的矩阵。

# %%
d = 4096
full = d * d
say(en="     r     parameters    share    times fewer", zh="     r         参数量     占比       缩小倍数")
for r in [1, 2, 4, 8, 16, 32, 64, 128, 256]:
    few = r * (d + d)
    print(f"{r:6} {few:14,} {few / full:8.2%} {full / few:14,.0f}")
say(en=f"  full {full:14,} {1:8.2%}", zh=f"  全量 {full:14,} {1:8.2%}")

# %% [markdown] lang="en"
# The saving is not for ever: at some rank $A$ and $B$ together have as many numbers as $\Delta W$. From
# $r(d_{in} + d_{out}) = d_{in} d_{out}$:

# %% [markdown] lang="zh"
# 但并不是无论怎样都能省：秩大到一定程度，$A$ 和 $B$ 的数加起来就和 $\Delta W$ 一样多了。由 $r(d_{in} + d_{out}) = d_{in} d_{out}$ 可得：

# %%
say(
    en=f"Here nothing is saved any more from r = {d * d // (d + d)} on.",
    zh=f"在这个例子里，从 r = {d * d // (d + d)} 起就不再节省了。",
)

# %% [markdown] lang="en"
# Fewer trained numbers means less memory. Training with Adam in float32 keeps for every **trained** number its gradient
# and two running averages: three numbers of four bytes. Frozen numbers need none of the three.

# %% [markdown] lang="zh"
# 要训练的数少了，占用的内存也就少了。用 Adam 以 float32 训练时，每个**被训练**的数都要另存一个梯度和两个滑动平均：三个数，每个四字节。冻结的数则一个也不需要。

# %%
r = 16
say(
    en=f"Gradients and averages for this one matrix: {12 * full / 2**20:.0f} MiB in full, "
    f"{12 * r * 2 * d / 2**20:.1f} MiB at r = {r}.",
    zh=f"仅这一个矩阵的梯度和滑动平均：全量 {12 * full / 2**20:.0f} MiB，r = {r} 时 {12 * r * 2 * d / 2**20:.1f} MiB。",
)

# %% [markdown] lang="en"
# ## 2.4 How it computes
#
# $BA$ never has to be formed. For an input $x$ we go through the narrow place in the middle:
#
# $$y = W x + \frac{\alpha}{r}\, B \,(A x)$$
#
# First $A$ turns $d_{in}$ numbers into $r$, then $B$ turns $r$ numbers into $d_{out}$. After training we may add the
# change to the weight once, **merge** it, and the model is as fast as before:
#
# $$W' = W + \frac{\alpha}{r}\, B A$$
#
# Both ways must give the same result. Let us see, in double precision (float64).

# %% [markdown] lang="zh"
# ## 2.4 怎样计算
#
# 其实不必真的算出 $BA$。对输入 $x$，我们从中间的"窄处"通过：
#
# $$y = W x + \frac{\alpha}{r}\, B \,(A x)$$
#
# 先由 $A$ 把 $d_{in}$ 个数变成 $r$ 个，再由 $B$ 把 $r$ 个数变成 $d_{out}$ 个。训练结束后，可以一次性把改变量加进权重，这叫**合并**；合并后的模型和原来一样快：
#
# $$W' = W + \frac{\alpha}{r}\, B A$$
#
# 两种算法的结果必须相同。我们用双精度（float64）来验证。

# %%
d_in, d_out, r, alpha = 768, 3072, 16, 32
W = torch.randn(d_out, d_in, dtype=torch.float64)
A = torch.randn(r, d_in, dtype=torch.float64)
B = torch.randn(d_out, r, dtype=torch.float64)
x = torch.randn(5, d_in, dtype=torch.float64)  # five inputs, one in each row

beside = x @ W.T + alpha / r * (x @ A.T @ B.T)
merged = x @ (W + alpha / r * (B @ A)).T

say(
    en=f"Shapes: x {tuple(x.shape)}, x Aᵀ {tuple((x @ A.T).shape)}, y {tuple(beside.shape)}.",
    zh=f"形状：x {tuple(x.shape)}，x Aᵀ {tuple((x @ A.T).shape)}，y {tuple(beside.shape)}。",
)
say(
    en=f"Largest difference: {(beside - merged).abs().max():.1e}; largest result: {merged.abs().max():.0f}.",
    zh=f"最大差异：{(beside - merged).abs().max():.1e}；结果的最大值：{merged.abs().max():.0f}。",
)

# %% [markdown] lang="en"
# The difference is rounding in the last digits, nothing more.
#
# ## 2.5 How it starts
#
# LoRA starts with $A$ random and $B$ zero (paper, section 4.1). Two reasons:
#
# 1. Then $BA = 0$: before the first step the model is **exactly** the pretrained one. Nothing it knows is disturbed.
# 2. It can still learn. With $g$ the gradient of the loss at the layer's output, the chain rule gives
#
# $$\frac{\partial L}{\partial B} = \frac{\alpha}{r}\, g\,(A x)^\top, \qquad \frac{\partial L}{\partial A} = \frac{\alpha}{r}\, B^\top g\, x^\top$$
#
# With $B = 0$ the gradient of $A$ is zero in the first step, but that of $B$ is not. So $B$ moves first, and then $A$
# moves too. Were both zero, both gradients would be zero, for ever. Were both random, the start would not be the
# pretrained model. The cell tries all of it.

# %% [markdown] lang="zh"
# 差异只是末位数字的舍入误差，仅此而已。
#
# ## 2.5 怎样起步
#
# LoRA 起步时，$A$ 取随机数，$B$ 取零（论文 4.1 节）。理由有两个：
#
# 1. 这时 $BA = 0$：走第一步之前，模型**恰好**就是预训练模型，它学过的东西一点也没有被打乱。
# 2. 它仍然能学习。设 $g$ 是损失对该层输出的梯度，由链式法则得
#
# $$\frac{\partial L}{\partial B} = \frac{\alpha}{r}\, g\,(A x)^\top, \qquad \frac{\partial L}{\partial A} = \frac{\alpha}{r}\, B^\top g\, x^\top$$
#
# 当 $B = 0$ 时，第一步里 $A$ 的梯度为零，但 $B$ 的梯度不为零。所以 $B$ 先动，随后 $A$ 也动起来。如果两者都是零，两个梯度就永远是零；如果两者都随机，起点就不再是预训练模型。下面的单元格把各种情况都试一遍。

# %%
torch.manual_seed(123)
W = torch.randn(8, 10)
x, target = torch.randn(6, 10), torch.randn(6, 8)
small = torch.randn(4, 10) * 0.1
starts = {
    "A random, B zero": (small, torch.zeros(8, 4)),
    "A zero,   B random": (torch.zeros(4, 10), torch.randn(8, 4) * 0.1),
    "both zero": (torch.zeros(4, 10), torch.zeros(8, 4)),
    "both random": (small, torch.randn(8, 4) * 0.1),
}

say(
    en="                       change    gradient   gradient   loss before,\n"
    "start                at start        of A       of B   after 100 steps",
    zh="                     起点处的      A 的       B 的     损失：之前，\n"
    "起点                   改变量      梯度       梯度     100 步之后",
)
for name, (A_start, B_start) in starts.items():
    A, B = A_start.clone().requires_grad_(), B_start.clone().requires_grad_()
    at_start = (B @ A).abs().max().item()
    losses, first_gradients = [], None
    for _ in range(100):
        loss = ((x @ (W + B @ A).T - target) ** 2).mean()
        grad_A, grad_B = torch.autograd.grad(loss, [A, B])
        first_gradients = first_gradients or (grad_A.norm().item(), grad_B.norm().item())
        losses.append(loss.item())
        with torch.no_grad():
            A -= 0.1 * grad_A
            B -= 0.1 * grad_B
    print(
        f"{name:20} {at_start:8.3f} {first_gradients[0]:11.3f} {first_gradients[1]:10.3f} {losses[0]:9.2f} {losses[-1]:7.2f}"
    )

# %% [markdown] lang="en"
# Only *both zero* never learns. *A zero, B random* works as well; the paper and `peft` chose the other one, and so do we.

# %% [markdown] lang="zh"
# 只有"两者都为零"（both zero）学不会。"A 为零、B 随机"其实也可以；论文和 `peft` 选了前一种，我们也一样。

# %% [markdown] lang="en"
# ## 2.6 What alpha does
#
# The change is multiplied by a **scaling**. There are two conventions, and mixing them up is a common mistake:
#
# - **$\alpha / r$**: the paper's, and that of `peft` and `lorafy`. `alpha=32` at `r=16` means a factor of two.
# - **$\alpha$ alone**: found in several hand-written LoRA tutorials. There `alpha=32` multiplies by thirty-two!
#
# The same settings in the other convention are another training. `lorafy.scratch` knows both and converts.

# %% [markdown] lang="zh"
# ## 2.6 alpha 起什么作用
#
# 改变量要乘上一个**缩放系数**。写法有两种约定，混淆它们是常见的错误：
#
# - **$\alpha / r$**：论文的约定，`peft` 和 `lorafy` 也用它。`r=16`、`alpha=32` 时，系数是二。
# - **只用 $\alpha$**：一些手写 LoRA 的教程这样做。这时 `alpha=32` 就真的要乘三十二！
#
# 同样的设置，换一种约定，就成了另一次训练。`lorafy.scratch` 两种都支持，也能互相换算。

# %%
from lorafy.scratch import equal_alpha, scaling_factor

for r in [8, 16]:
    paper, plain = scaling_factor(32, r, "paper"), scaling_factor(32, r, "plain")
    same = equal_alpha(32, r, from_="plain", to="paper")
    say(
        en=f"r={r}, alpha=32: the paper multiplies by {paper:g}, the plain convention by {plain:g}. "
        f"The paper's alpha for the same: {same:g}.",
        zh=f"r={r}，alpha=32：论文的约定乘以 {paper:g}，另一种约定乘以 {plain:g}；论文约定下等价的 alpha 是 {same:g}。",
    )

# %% [markdown] lang="en"
# Why divide by $r$ at all? Because we like to change $r$ without looking for a new learning rate. The question is how far
# **one step** moves the output of the layer. It depends on the optimizer:
#
# - *Adam* moves every number of $B$ by about the learning rate, however small its gradient is. The $r$ parts of $B(Ax)$
#   then push the same way, so the output moves about $r$ times as far. Dividing by $r$ takes that out.
# - *Plain gradient descent* (SGD) moves by the gradient itself, which contains the scaling once more. Here the right
#   divisor is $\sqrt{r}$. [rsLoRA (Kalajdzievski 2023)](https://arxiv.org/abs/2312.03732) proposes
#   $\alpha / \sqrt{r}$ for large ranks, from an analysis of the whole training.
#
# We measure one step from the start, $B = 0$, with a random gradient at the output.

# %% [markdown] lang="zh"
# 为什么要除以 $r$？因为我们希望改变 $r$ 时不必重新寻找学习率。关键在于：**走一步**，这一层的输出会移动多远？这取决于优化器：
#
# - *Adam* 让 $B$ 的每个数大约移动一个学习率那么远，不管它的梯度多小。这样 $B(Ax)$ 的 $r$ 个部分朝同一方向推，输出移动的距离大约是 $r$ 倍。除以 $r$ 正好抵消。
# - *普通梯度下降*（SGD）按梯度本身移动，而梯度里又含有一次缩放系数。这时合适的除数是 $\sqrt{r}$。[rsLoRA（Kalajdzievski 2023）](https://arxiv.org/abs/2312.03732)分析了整个训练过程，建议在秩较大时用 $\alpha / \sqrt{r}$。
#
# 我们从起点 $B = 0$ 出发，在输出端给一个随机梯度，量一量一步能走多远。

# %%
import math

from lorafy.report.style import BLUE, GREEN, VERMILLION

ranks = [1, 2, 4, 8, 16, 32, 64, 128]
scalings = {
    r"$\alpha$": lambda r: 1,
    r"$\alpha / \sqrt{r}$": lambda r: 1 / math.sqrt(r),
    r"$\alpha / r$": lambda r: 1 / r,
}


def movement(r: int, scaling: float, is_adam: bool) -> float:
    """How far one step from B = 0 moves the output; the mean of many tries."""
    moves = []
    for _ in range(100):
        x, g = torch.randn(256), torch.randn(256)
        A = (torch.rand(r, 256) * 2 - 1) / 16  # the usual start: its spread depends on the width, not on r
        gradient = scaling * torch.outer(g, A @ x)
        B = -gradient.sign() if is_adam else -gradient  # Adam's first step has the same size everywhere
        moves.append((scaling * (B @ (A @ x))).norm().item())
    return sum(moves) / len(moves)


figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True)
titles = [label(en="one step of Adam", zh="Adam 走一步"), label(en="one step of SGD", zh="SGD 走一步")]
for axes, title, is_adam in zip(panels, titles, [True, False], strict=True):
    for (name, scaling), colour, marker in zip(scalings.items(), [VERMILLION, GREEN, BLUE], "o^s", strict=True):
        moves = [movement(r, scaling(r), is_adam) for r in ranks]
        axes.plot(ranks, [move / moves[0] for move in moves], color=colour, marker=marker, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(ranks, [str(r) for r in ranks])
    axes.set_title(title, loc="left")
    axes.set_xlabel(label(en="rank $r$", zh="秩 $r$"))
panels[0].set_ylabel(label(en="movement of the output (1 at $r = 1$)", zh="输出移动的距离（$r = 1$ 时记作 1）"))
panels[0].legend(title=label(en="scaling", zh="缩放系数"))
plt.show()

# %% [markdown] lang="en"
# Look for the flat line: with it, a learning rate found at one rank fits the others. For Adam, which nearly everybody uses
# for LoRA, that is $\alpha / r$. "LoRA Without Regret"
# ([Thinking Machines 2025](https://thinkingmachines.ai/blog/lora/)) reports the same from large experiments: with the
# $1/r$ scaling the best learning rate hardly depends on the rank. One step is not a whole training, though. Later steps are
# less alike, and that is where rsLoRA's argument comes in.
#
# Remember: **$\alpha$ and the learning rate both say how far a step goes. Keep $\alpha$ fixed, tune the learning rate.**

# %% [markdown] lang="zh"
# 请找那条接近水平的线：用它，在某个秩上找到的学习率，换一个秩也合用。训练 LoRA 时几乎人人都用 Adam，对它来说，这条线就是 $\alpha / r$。《LoRA Without Regret》（[Thinking Machines 2025](https://thinkingmachines.ai/blog/lora/)）在大规模实验中也看到：采用 $1/r$ 缩放时，最佳学习率几乎不随秩变化。不过，一步不等于整个训练。后面的各步不再这么整齐，rsLoRA 的论证正是针对这种情形。
#
# 请记住：**$\alpha$ 和学习率都在决定一步走多远。固定 $\alpha$，只调学习率。**

# %% [markdown] lang="en"
# ## 2.7 Are real changes of low rank?
#
# So far this was algebra. Whether a low rank *suffices* is a question about real models. Let us look at one. We fine-tune
# **all** weights of MiniLM, without any LoRA, for a few dozen steps on SMS spam, and look at $\Delta W$ afterwards.
#
# The tool for looking is the **singular value decomposition**. It writes any matrix as a sum of matrices of rank 1, the
# strongest first:
#
# $$\Delta W = \sigma_1 u_1 v_1^\top + \sigma_2 u_2 v_2^\top + \dots, \qquad \sigma_1 \ge \sigma_2 \ge \dots \ge 0$$
#
# The **singular values** $\sigma_i$ say how strong each part is. If they fall quickly, the first few parts are nearly the
# whole matrix, and a low rank is enough to store it. In fact the first $r$ parts are the best approximation of rank
# $r$ that exists (Eckart and Young 1936).

# %% [markdown] lang="zh"
# ## 2.7 真实的改变是低秩的吗？
#
# 到此为止都是代数。低秩到底*够不够用*，要看真实的模型。我们就来看一个：不用 LoRA，在垃圾短信数据上对 MiniLM 的**全部**权重微调几十步，然后观察 $\Delta W$。
#
# 观察的工具是**奇异值分解**。它能把任意矩阵写成若干个秩为 1 的矩阵之和，最强的排在最前面：
#
# $$\Delta W = \sigma_1 u_1 v_1^\top + \sigma_2 u_2 v_2^\top + \dots, \qquad \sigma_1 \ge \sigma_2 \ge \dots \ge 0$$
#
# **奇异值** $\sigma_i$ 表示每一部分有多强。如果它们下降得很快，前几个部分就几乎是整个矩阵，用低秩来存就够了。事实上，前 $r$ 个部分之和正是秩为 $r$ 的最佳近似（Eckart 与 Young，1936）。

# %%
import lorafy
from lorafy.scratch import drop_repeated, random_split, read_messages

DATA = None  # or the path of your SMSSpamCollection
messages = read_messages(DATA or Path(lorafy.__file__).parent / "demo" / "sms.csv")
train, validation, test = random_split(drop_repeated(messages))
test = test[:150]  # enough for this chapter

say(
    en=f"{len(train)} messages to train on, {len(test)} to test. The next chapter looks at them.",
    zh=f"用 {len(train)} 条短信训练，{len(test)} 条测试。下一章再仔细看这些数据。",
)

# %% [markdown] lang="en"
# The encoder turns each token of a text into a vector of 384 numbers. We take the mean over a text's tokens, and a small
# new layer, the **head**, turns it into two numbers: one for ham, one for spam.

# %% [markdown] lang="zh"
# 编码器把文本中的每个词元变成含 384 个数的向量。我们对一条文本的所有词元取平均，再用一个新加的小层，即**分类头**，把它变成两个数：一个代表正常短信（ham），一个代表垃圾短信（spam）。

# %%
from torch import nn
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from lorafy.machine.quiet import quiet_transformers
from lorafy.models.embedded import resolve

torch.manual_seed(123)
with quiet_transformers():
    tokenizer = AutoTokenizer.from_pretrained(resolve("minilm"))
    encoder = AutoModel.from_pretrained(resolve("minilm"))
head = nn.Linear(384, 2)


def predict(texts: list[str]) -> torch.Tensor:
    """-> logits (texts, 2)"""
    batch = tokenizer(texts, padding=True, truncation=True, max_length=32, return_tensors="pt")
    vectors = encoder(**batch).last_hidden_state  # (texts, tokens, 384)
    real = batch["attention_mask"].unsqueeze(-1)  # 1 for a token, 0 for padding
    return head((vectors * real).sum(1) / real.sum(1))


predict(["Hello!", "You won a prize"]).shape

# %% [markdown] lang="en"
# Now the training, an ordinary loop: one pass over the messages, at most forty steps of sixteen.

# %% [markdown] lang="zh"
# 现在开始训练。这是一个普通的循环：把短信过一遍，最多四十步，每步十六条。

# %%
import time

weights = [name for name, weight in encoder.named_parameters() if weight.ndim == 2 and name.startswith("encoder.layer")]
before = {name: encoder.get_parameter(name).detach().clone() for name in weights}

optimizer = torch.optim.AdamW(
    [{"params": encoder.parameters(), "lr": 1e-4}, {"params": head.parameters(), "lr": 1e-2}], weight_decay=0.0
)
encoder.train()
began, losses = time.perf_counter(), []
for start_row in range(0, len(train), 16)[:40]:
    rows = train[start_row : start_row + 16]
    loss = functional.cross_entropy(predict([text for text, _ in rows]), torch.tensor([target for _, target in rows]))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
encoder.eval()

first_losses, last_losses = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
say(
    en=f"{len(losses)} steps in {time.perf_counter() - began:.0f} s; loss {first_losses:.2f} at first, {last_losses:.2f} at the end.",
    zh=f"{len(losses)} 步，用时 {time.perf_counter() - began:.0f} 秒；损失从 {first_losses:.2f} 降到 {last_losses:.2f}。",
)

# %% [markdown] lang="en"
# Each matrix of the encoder now has a *before* and an *after*. We decompose the difference, for all of them.

# %% [markdown] lang="zh"
# 现在编码器里的每个矩阵都有了"之前"和"之后"。我们把每一个差都做奇异值分解。

# %%
changes = {
    name: torch.linalg.svd(encoder.get_parameter(name).detach() - before[name], full_matrices=False) for name in weights
}
relative = [changes[name].S.norm().item() / before[name].norm().item() for name in weights]

say(
    en=f"{len(weights)} matrices. Each change is small: {min(relative):.1%} to {max(relative):.1%} of the weight's own size.",
    zh=f"共 {len(weights)} 个矩阵。改变都很小：是权重本身大小的 {min(relative):.1%} 到 {max(relative):.1%}。",
)

# %% [markdown] lang="en"
# The picture: the singular values of three weights (grey) and of their changes (colour), each divided by its own largest.
# The layers are counted from 0; the last is 5.

# %% [markdown] lang="zh"
# 来看图：三个权重的奇异值（灰色）和它们改变量的奇异值（彩色），各自除以自己的最大值。层号从 0 数起，最后一层是 5。

# %%
from lorafy.report.style import MUTED

shown = {
    "encoder.layer.0.attention.self.query.weight": label(en="layer 0, query", zh="第 0 层，query"),
    "encoder.layer.2.attention.output.dense.weight": label(en="layer 2, attention output", zh="第 2 层，注意力输出"),
    "encoder.layer.5.output.dense.weight": label(en="layer 5, feed-forward output", zh="第 5 层，前馈输出"),
}
figure, panels = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True)
for axes, (name, title) in zip(panels, shown.items(), strict=True):
    of_weight, of_change = torch.linalg.svdvals(before[name]), changes[name].S
    places = range(1, len(of_change) + 1)
    axes.plot(places, of_weight / of_weight[0], color=MUTED, label=label(en="the weight, $W$", zh="权重 $W$"))
    axes.plot(
        places,
        of_change / of_change[0],
        color=VERMILLION,
        label=label(en=r"its change, $\Delta W$", zh=r"改变量 $\Delta W$"),
    )
    axes.set_yscale("log")
    axes.set_ylim(1e-3, 1.5)
    axes.set_title(title, loc="left", fontsize=10.5)
    axes.set_xlabel(label(en="number of the singular value, $i$", zh="奇异值的序号 $i$"))
panels[0].set_ylabel(label(en=r"$\sigma_i / \sigma_1$ (logarithmic)", zh=r"$\sigma_i / \sigma_1$（对数坐标）"))
panels[0].legend(loc="lower left")
plt.show()

# %% [markdown] lang="en"
# The changes fall faster than the weights, and most of all in the last layer. A number says it: which **share of the
# energy** do the first $r$ parts hold? Energy is the sum of the squares,
#
# $$\text{share}(r) = \frac{\sigma_1^2 + \dots + \sigma_r^2}{\sigma_1^2 + \sigma_2^2 + \dots}$$

# %% [markdown] lang="zh"
# 改变量比权重下降得快，最后一层尤其明显。可以用一个数来说明：前 $r$ 个部分占了多少**能量**？能量就是平方和，
#
# $$\text{share}(r) = \frac{\sigma_1^2 + \dots + \sigma_r^2}{\sigma_1^2 + \sigma_2^2 + \dots}$$


# %%
def share(values: torch.Tensor, r: int) -> float:
    return (values[:r].square().sum() / values.square().sum()).item()


ranks = [1, 4, 8, 16, 32]
print("share of W  /  share of ΔW".rjust(60))
print("r =".rjust(30) + "".join(f"{r:>14}" for r in ranks))
for layer in [0, 2, 5]:
    for part in ["attention.self.query", "attention.self.value", "attention.output.dense", "output.dense"]:
        name = f"encoder.layer.{layer}.{part}.weight"
        of_weight = torch.linalg.svdvals(before[name])
        cells = [f"{share(of_weight, r):.0%} / {share(changes[name].S, r):.0%}" for r in ranks]
        print(f"{layer}.{part}".ljust(30) + "".join(f"{cell:>14}" for cell in cells))

# %% [markdown] lang="en"
# Read the table with care, in both directions:
#
# - The change is **much more concentrated** than the weight: compare the two shares in each cell.
# - It is **not exactly** of low rank. In the first layers the first few parts hold far from everything. Adam has a hand
#   in this: it moves also those numbers whose gradient is mostly noise.
#
# So does the model *need* the rest? We can ask it. We put back the weights from before, add only the first $r$ parts of
# every change, and test. The head is the trained one in every row. $r = 0$ is the untouched encoder under that head.

# %% [markdown] lang="zh"
# 这张表要从两面来读：
#
# - 改变量比权重**集中得多**：请比较每一格里的两个占比。
# - 它**并不严格**是低秩的。在靠前的层里，头几个部分远远不是全部。这里也有 Adam 的"功劳"：梯度几乎全是噪声的那些数，它也照样移动。
#
# 那么模型*需要*剩下的部分吗？问问它就知道了：先恢复原来的权重，再给每个矩阵只加上改变量的前 $r$ 个部分，然后测试。每一行用的都是训练好的分类头；$r = 0$ 表示编码器原封不动。


# %%
@torch.no_grad()
def test_with_rank(r: int) -> tuple[float, float]:
    """-> share of right answers, mean loss"""
    for name in weights:
        U, S, Vh = changes[name]
        encoder.get_parameter(name).copy_(before[name] + U[:, :r] * S[:r] @ Vh[:r])
    by_length = sorted(test, key=lambda row: len(row[0]))  # texts of like length together: less padding
    logits = torch.cat([predict([text for text, _ in by_length[i : i + 32]]) for i in range(0, len(by_length), 32)])
    targets = torch.tensor([target for _, target in by_length])
    return (logits.argmax(-1) == targets).float().mean().item(), functional.cross_entropy(logits, targets).item()


tried = [0, 1, 4, 16, 384]
results = [test_with_rank(r) for r in tried]
say(en="      r   accuracy     loss", zh="      r    准确率      损失")
for r, (accuracy, loss) in zip(tried, results, strict=True):
    print(f"{r:7} {accuracy:10.1%} {loss:8.3f}")

# %% [markdown] lang="en"
# $r = 384$ is the whole change. How much of a difference between two rows is chance? An accuracy $p$ that was found on $n$
# messages is known only to within $\pm 1.96 \sqrt{p(1-p)/n}$ (95 % interval):

# %% [markdown] lang="zh"
# $r = 384$ 就是完整的改变量。两行之间的差别，有多少只是偶然？在 $n$ 条短信上测得的准确率 $p$，误差大约是 $\pm 1.96 \sqrt{p(1-p)/n}$（95% 置信区间）：

# %%
p, n = results[-1][0], len(test)
say(
    en=f"±{1.96 * math.sqrt(p * (1 - p) / n):.1%} at {n} messages.",
    zh=f"{n} 条短信时，误差为 ±{1.96 * math.sqrt(p * (1 - p) / n):.1%}。",
)
near = next(
    r for r, (accuracy, _) in zip(tried, results, strict=True) if abs(accuracy - p) <= 1.96 * math.sqrt(p * (1 - p) / n)
)
say(
    en=f"The smallest r in the table that is within this of the whole change: {near}.",
    zh=f"表中与完整改变量相差不超过这个误差的最小的 r：{near}。",
)

# %% [markdown] lang="en"
# This is what LoRA lives on: for a task like this one, a few directions in each matrix do the work, and most of the rest
# is not needed. Two limits, so that you do not believe too much:
#
# - This is one small task with few examples. After long training on much data (code, mathematics) full fine-tuning makes
#   changes of much higher rank, and LoRA may learn less ([Biderman et al. 2024](https://arxiv.org/abs/2405.09673)). The
#   more there is to learn, the larger $r$ must be.
# - That the change of a *full* fine-tuning can be cut down does not yet prove that training *within* a low rank finds as
#   good a solution. Chapters 5 to 8 try exactly that.

# %% [markdown] lang="zh"
# LoRA 靠的就是这一点：对这样的任务，每个矩阵里有少数几个方向在起作用，其余大部分并不需要。为了不让你过于相信它，再说两个局限：
#
# - 这只是一个例子不多的小任务。如果在大量数据（代码、数学）上长时间训练，全量微调的改变量秩要高得多，LoRA 学到的可能更少（[Biderman et al. 2024](https://arxiv.org/abs/2405.09673)）。要学的东西越多，$r$ 就要越大。
# - *全量*微调得到的改变量可以压缩，并不能证明*限制在*低秩里训练也能找到同样好的解。第 5 章到第 8 章要试的正是这件事。

# %% [markdown] lang="en"
# ## Exercise
#
# MiniLM has 6 layers. In each, four matrices of the attention are 384 × 384, the feed-forward goes from 384 to 1536 and
# back. How many parameters does LoRA with $r = 8$ on all of these have, and what share of the matrices' own numbers is it?
# Work it out on paper first.

# %% [markdown] lang="zh"
# ## 练习
#
# MiniLM 有 6 层。每层的注意力里有四个 384 × 384 的矩阵，前馈网络先从 384 维到 1536 维，再变回来。在所有这些矩阵上加 $r = 8$ 的 LoRA，一共有多少参数？占这些矩阵本身的多大比例？请先在纸上算一算。

# %%
r = 8
in_lora = 6 * (4 * r * (384 + 384) + 2 * r * (384 + 1536))
in_full = 6 * (4 * 384 * 384 + 2 * 384 * 1536)
say(
    en=f"{in_lora:,} of {in_full:,}: {in_lora / in_full:.1%}.",
    zh=f"{in_lora:,} / {in_full:,}，即 {in_lora / in_full:.1%}。",
)
counted = sum(r * sum(before[name].shape) for name in weights)
say(en=f"Counted on the model itself: {counted:,}.", zh=f"在模型上直接数：{counted:,}。")
