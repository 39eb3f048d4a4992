# %% [markdown] lang="en"
# # 5 · LoRA in thirty lines
#
# A linear layer computes $y = W x + b$. LoRA leaves $W$ and $b$ as they are and adds a second, very thin way beside it:
#
# $$y = W x + b + s \cdot B A x$$
#
# $A$ has the shape $(r, \mathrm{in})$, $B$ has $(\mathrm{out}, r)$, and the rank $r$ is small. Only $A$ and $B$ are trained.
# That is the whole idea of the paper ([Hu et al. 2021](https://arxiv.org/abs/2106.09685), section 4.1). In this chapter we
# write it down, put it into the GPT of chapter 4, and look at two mistakes that stay hidden behind a healthy loss curve.

# %% [markdown] lang="zh"
# # 5 · 三十行写出 LoRA
#
# 线性层算的是 $y = W x + b$。LoRA 不动 $W$ 和 $b$，只在旁边加一条很窄的支路：
#
# $$y = W x + b + s \cdot B A x$$
#
# $A$ 的形状是 $(r, \mathrm{in})$，$B$ 的形状是 $(\mathrm{out}, r)$，秩 $r$ 很小，训练的只有 $A$ 和 $B$。论文的全部想法就是这样（[Hu et al. 2021](https://arxiv.org/abs/2106.09685)，第 4.1 节）。本章把它写出来，装进第 4 章的 GPT，再看两个藏在漂亮损失曲线背后的错误。

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
# ## Thirty lines

# %% [markdown] lang="zh"
# ## 三十行代码

# %%
import math

import torch
from torch import nn


class MyLoRA(nn.Module):
    """A linear layer that is frozen, and beside it s * B A x."""

    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear = linear
        self.linear.requires_grad_(False)
        self.A = nn.Parameter(torch.empty(rank, linear.in_features))
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.scaling = alpha / rank

    def forward(self, x):
        return self.linear(x) + self.scaling * (x @ self.A.T @ self.B.T)


def put_lora(module, rank, alpha):
    """Replaces every linear layer inside, however deep. Returns how many."""
    count = 0
    for name, child in list(module.named_children()):
        if type(child) is nn.Linear:
            setattr(module, name, MyLoRA(child, rank, alpha))
            count += 1
        else:
            count += put_lora(child, rank, alpha)
    return count


# %% [markdown] lang="en"
# Three details matter.
#
# 1. **$B$ starts as zeros.** So $BA = 0$, and before the first step the model is exactly the base. If training goes wrong, it
#    is not because of the start.
# 2. **$A$ does not start as zeros.** The gradient of $B$ contains $A x$, and the gradient of $A$ contains $B$. If both were zero,
#    both gradients would be zero for ever.
# 3. **The order of the products.** `x @ A.T @ B.T` goes through only $r$ numbers. The large matrix $BA$ is never built.
#
# We check all three.

# %% [markdown] lang="zh"
# 有三个细节很要紧。
#
# 1. **$B$ 从零开始。** 于是 $BA = 0$，第一步之前模型与基座完全一样。训练若出问题，不会是起点的错。
# 2. **$A$ 不能从零开始。** $B$ 的梯度里有 $A x$，$A$ 的梯度里有 $B$。两个都是零，两个梯度就永远是零。
# 3. **乘法的顺序。** `x @ A.T @ B.T` 中间只经过 $r$ 个数，那个大矩阵 $BA$ 从来不用算出来。
#
# 三条都来验证一下。

# %%
torch.manual_seed(0)
linear = nn.Linear(64, 48)
layer = MyLoRA(linear, rank=4, alpha=8)
x = torch.randn(10, 64)

difference = (layer(x) - linear(x)).abs().max().item()
say(en=f"1. Difference from the base at the start: {difference}", zh=f"1. 起点与基座的差别：{difference}")

layer(x).pow(2).mean().backward()
say(
    en=f"2. Norm of the gradients at the start: A {layer.A.grad.norm().item():.3f}, B {layer.B.grad.norm().item():.3f}",
    zh=f"2. 起点处梯度的范数：A {layer.A.grad.norm().item():.3f}，B {layer.B.grad.norm().item():.3f}",
)

nn.init.zeros_(layer.A)
layer.zero_grad()
layer(x).pow(2).mean().backward()
say(
    en=f"   ... and had A been zeros too: A {layer.A.grad.norm().item():.3f}, B {layer.B.grad.norm().item():.3f}: it never moves",
    zh=f"   ……如果 A 也是零：A {layer.A.grad.norm().item():.3f}，B {layer.B.grad.norm().item():.3f}：永远不动",
)

thin = 4 * 64 + 48 * 4
say(
    en=f"3. Multiplications for one x: {thin} through A and then B; {48 * 64} with BA as one matrix.",
    zh=f"3. 对一个 x 的乘法次数：先 A 后 B 是 {thin}；把 BA 当一个矩阵是 {48 * 64}。",
)

# %% [markdown] lang="en"
# $A$ gets no gradient in the very first step, because $B$ is still zero. After that step $B$ is not zero any more, and both learn.
#
# ## The same from lorafy.scratch
#
# The classes of `lorafy.scratch` do the same and check a little more. With the same $A$ and $B$ the outputs must agree.

# %% [markdown] lang="zh"
# 第一步里 $A$ 没有梯度，因为 $B$ 还是零。走完这一步，$B$ 就不再是零，两个都开始学习。
#
# ## lorafy.scratch 里的同一个东西
#
# `lorafy.scratch` 里的类做的是同一件事，只是多检查一些。$A$、$B$ 相同，输出就必须相同。

# %%
from lorafy.scratch import LinearWithLoRA, equal_alpha, scaling_factor

mine = MyLoRA(linear, rank=4, alpha=8)
theirs = LinearWithLoRA(linear, rank=4, alpha=8)
with torch.no_grad():
    mine.B.normal_()
    theirs.lora.lora_A.copy_(mine.A)
    theirs.lora.lora_B.copy_(mine.B)
difference = (mine(x) - theirs(x)).abs().max().item()
assert difference < 1e-5
say(en=f"Largest difference: {difference:.1e}", zh=f"最大差别：{difference:.1e}")

# %% [markdown] lang="en"
# ## What alpha means
#
# The factor $s$ has two conventions, and people mix them up:
#
# - in the paper and in peft, $s = \alpha / r$ (here: `scaling="paper"`, the default);
# - in many courses, $s = \alpha$ (here: `scaling="plain"`).
#
# We use the paper's. With the division there is less need to tune the learning rate again when you change $r$
# (paper, section 4.1), and the number means the same in the tools that others use. Both can be converted:

# %% [markdown] lang="zh"
# ## alpha 是什么意思
#
# 系数 $s$ 有两种约定，大家常常弄混：
#
# - 论文和 peft 里，$s = \alpha / r$（这里是 `scaling="paper"`，默认值）；
# - 不少教程里，$s = \alpha$（这里是 `scaling="plain"`）。
#
# 我们用论文的约定。除以 $r$ 之后，改变 $r$ 时不太需要重新调学习率（论文第 4.1 节）；而且别人的工具里这个数也是同样的意思。两种约定可以互相换算：

# %%
for rank in (8, 16, 32):
    factor = scaling_factor(32, rank, "paper")
    plain = equal_alpha(32, rank, from_="paper", to="plain")
    say(
        en=f"r = {rank:2d}, alpha = 32 in the paper: BA is multiplied by {factor:g}; the same with alpha = {plain:g} in 'plain'.",
        zh=f"r = {rank:2d}，论文约定 alpha = 32：BA 乘以 {factor:g}；用 plain 约定则是 alpha = {plain:g}。",
    )

# %% [markdown] lang="en"
# ## Into the model: replace, count, freeze
#
# Now the GPT. The data are those of chapter 3; the model is smaller than the default, so that each training here takes
# seconds. Its weights are random: it stands in for a pretrained base. (Chapter 6 pretrains it.)

# %% [markdown] lang="zh"
# ## 装进模型：替换、计数、冻结
#
# 现在轮到 GPT。数据还是第 3 章的；模型比默认的小，每次训练只要几秒钟。它的权重是随机的，暂时替预训练好的基座站岗（第 6 章会真正预训练它）。

# %%
import copy

import lorafy.demo
from course.tokenizer import ByteLevelBPE
from lorafy.scratch import (
    SimpleGPTForClassification,
    SpamDataset,
    count_parameters,
    create_balanced_dataset,
    drop_repeated,
    make_loader,
    random_split,
    read_messages,
    replace_linear_with_lora,
)

DATA = None  # or the path of your SMSSpamCollection
path = DATA or Path(lorafy.demo.__file__).with_name("sms.csv")

rows = create_balanced_dataset(drop_repeated(read_messages(path)))
train_rows, validation_rows, test_rows = random_split(rows)
tokenizer = ByteLevelBPE.train([text for text, _ in train_rows])
train_set = SpamDataset.from_rows(train_rows, tokenizer)
validation_set = SpamDataset.from_rows(validation_rows, tokenizer, train_set.max_length)
test_set = SpamDataset.from_rows(test_rows, tokenizer, train_set.max_length)
test_loader = make_loader(test_set, batch_size=64)


def make_base(seed=123):
    return SimpleGPTForClassification(
        tokenizer.vocab_size, train_set.max_length, width=128, num_heads=4, num_layers=2, hidden=256, seed=seed
    ).eval()


base = make_base()
by_hand = put_lora(copy.deepcopy(base), rank=16, alpha=32)
model = copy.deepcopy(base)
report = replace_linear_with_lora(model, rank=16, alpha=32, skip=["head"])
say(
    en=f"{report.num_layers} linear layers got LoRA, {report.num_parameters:,} parameters were added.",
    zh=f"{report.num_layers} 个线性层装上了 LoRA，增加了 {report.num_parameters:,} 个参数。",
)
say(
    en=f"Ours replaced {by_hand} layers: the head too. lorafy.scratch left the head as it is, because we said skip=['head'].",
    zh=f"我们自己的函数替换了 {by_hand} 层，连分类头也换了；lorafy.scratch 没动分类头，因为写了 skip=['head']。",
)

# %% [markdown] lang="en"
# Never trust a count that you cannot redo. A layer with `in` and `out` gets $r \cdot (\mathrm{in} + \mathrm{out})$ new parameters:

# %% [markdown] lang="zh"
# 自己验算不了的数字不要信。一个 `in` 进 `out` 出的层，会多出 $r \cdot (\mathrm{in} + \mathrm{out})$ 个参数：

# %%
from lorafy.scratch import lora_layers

total = 0
for name, layer in lora_layers(model):
    size = 16 * (layer.linear.in_features + layer.linear.out_features)
    total += size
    print(f"{name:32s} {layer.linear.in_features:4d} -> {layer.linear.out_features:4d}   {size:6,d}")
assert total == report.num_parameters
say(en=f"Sum: {total:,}, as reported.", zh=f"合计：{total:,}，与报告一致。")

# %% [markdown] lang="en"
# The start equals the base, for the whole model too:

# %% [markdown] lang="zh"
# 对整个模型来说，起点也等于基座：

# %%
from lorafy.scratch import predict

difference = (predict(test_loader, model)[0] - predict(test_loader, base)[0]).abs().max().item()
assert difference == 0
say(
    en=f"Largest difference of a logit over {len(test_set)} test messages: {difference}",
    zh=f"{len(test_set)} 条测试短信上 logit 的最大差别：{difference}",
)

# %% [markdown] lang="en"
# ## Bug 1: "only LoRA trains", but embeddings and norms train too
#
# This loop stands in many notebooks. It freezes the linear layers that got LoRA, and the text beside it says: now only LoRA
# is trained.

# %% [markdown] lang="zh"
# ## 错误一：说是“只训练 LoRA”，嵌入和归一化却也在训练
#
# 下面这个循环在很多笔记本里都能看到。它冻结了装上 LoRA 的线性层，旁边写着：现在只训练 LoRA。

# %%
for _, layer in lora_layers(model):
    layer.linear.requires_grad_(False)


def kind(name):
    """The part of the model that a parameter belongs to."""
    if ".lora." in name:
        return "LoRA"
    if "embedding" in name:
        return label(en="embeddings", zh="嵌入")
    if "norm" in name:
        return label(en="norms", zh="归一化")
    return label(en="head", zh="分类头") if name.startswith("head") else label(en="linear layers", zh="线性层")


def trained_parts(model):
    sizes = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            sizes[kind(name)] = sizes.get(kind(name), 0) + parameter.numel()
    return sizes


parts = trained_parts(model)
for part, size in sorted(parts.items(), key=lambda item: -item[1]):
    print(f"{size:8,d}  {size / sum(parts.values()):6.1%}  {part}")
trainable, everything = count_parameters(model)
say(
    en=f"Trained: {trainable:,} of {everything:,} parameters ({trainable / everything:.0%}); LoRA is {parts['LoRA']:,} of them.",
    zh=f"参与训练：{everything:,} 个参数中的 {trainable:,} 个（{trainable / everything:.0%}）；其中 LoRA 只有 {parts['LoRA']:,} 个。",
)

# %% [markdown] lang="en"
# Nothing was frozen outside the linear layers. Does that hurt? While training: not at all, the loss falls. It hurts later.
# You save "the adapter" (LoRA and head), send it to a friend, who loads it on the same base: and gets another model.

# %% [markdown] lang="zh"
# 线性层以外什么都没冻结。这有害吗？训练时一点也看不出来，损失照样下降。坏处在后面：你保存了“适配器”（LoRA 和分类头），发给朋友；朋友把它装到同一个基座上，得到的却是另一个模型。

# %%
from lorafy.scratch import calc_accuracy, freeze_all_but_lora, load_lora_state_dict, lora_state_dict, train_lora_model


def train(model, epochs=2):
    """The same batches in the same order for each model."""
    loader = make_loader(train_set, shuffle=True)
    check = make_loader(validation_set, batch_size=64)
    return train_lora_model(model, loader, check, epochs=epochs, learning_rate=1e-3, eval_every=24, eval_batches=8)


def at_a_friends(model, also, friends_base):
    """LoRA (and what `also` names) out of the model, into a fresh base with LoRA."""
    saved = lora_state_dict(model, also=also)
    friend = copy.deepcopy(friends_base)
    replace_linear_with_lora(friend, rank=16, alpha=32, skip=["head"])
    load_lora_state_dict(friend, saved)
    return friend


def compare(here, there):
    ours, truth = predict(test_loader, here)
    theirs, _ = predict(test_loader, there)
    changed = (ours.argmax(-1) != theirs.argmax(-1)).sum().item()
    accuracies = [(logits.argmax(-1) == truth).float().mean().item() for logits in (ours, theirs)]
    say(
        en=f"accuracy here {accuracies[0]:.1%}, at the friend's {accuracies[1]:.1%}; "
        f"{changed} of {len(truth)} answers differ; largest difference of a logit {(ours - theirs).abs().max().item():.1e}",
        zh=f"这边准确率 {accuracies[0]:.1%}，朋友那边 {accuracies[1]:.1%}；"
        f"{len(truth)} 个答案里有 {changed} 个不同；logit 最大差别 {(ours - theirs).abs().max().item():.1e}",
    )


history = train(model)
say(
    en=f"train loss {history.train_losses[0]:.3f} -> {history.train_losses[-1]:.3f}: looks healthy",
    zh=f"训练损失 {history.train_losses[0]:.3f} -> {history.train_losses[-1]:.3f}：看起来很健康",
)
compare(model, at_a_friends(model, ["head"], base))

# %% [markdown] lang="en"
# **Mended.** First freeze *everything*, then unfreeze what you mean: A, B and, by name, the head. The report counts all
# parameters, so the claim can be checked.

# %% [markdown] lang="zh"
# **改正。** 先把*所有*参数冻结，再解冻你真正想训练的：A、B，以及点名的分类头。报告把全部参数都数一遍，说的话就可以核对了。


# %%
def tell(frozen):
    say(
        en=f"trained: {frozen.num_trainable:,} of {frozen.num_total:,} parameters ({frozen.num_trainable / frozen.num_total:.1%}): "
        f"{frozen.num_lora:,} of LoRA, {frozen.num_also:,} besides",
        zh=f"参与训练：{frozen.num_total:,} 个参数中的 {frozen.num_trainable:,} 个（{frozen.num_trainable / frozen.num_total:.1%}）："
        f"LoRA {frozen.num_lora:,} 个，其他 {frozen.num_also:,} 个",
    )


mended = copy.deepcopy(base)
replace_linear_with_lora(mended, rank=16, alpha=32, skip=["head"])
tell(freeze_all_but_lora(mended, also=["head"]))
mended_history = train(mended)
compare(mended, at_a_friends(mended, ["head"], base))

# %% [markdown] lang="en"
# The same model at both places, to the last bit. A good habit: after each training, save, load into a fresh base, compare.
# (`lorafy train` does it for you; see chapter 8.)
#
# ## Bug 2: a random head, frozen behind LoRA
#
# The opposite mistake. Somebody reads "freeze everything but LoRA" and does exactly that. But the classification head
# is *new*: no pretraining ever saw it, its weights are random. Frozen, they stay random for ever:

# %% [markdown] lang="zh"
# 两边是同一个模型，一个比特都不差。好习惯：每次训练完，保存，装进一个新的基座，对比。（`lorafy train` 会替你做，见第 8 章。）
#
# ## 错误二：随机的分类头被冻结在 LoRA 后面
#
# 这回是反过来的错误。有人读到“除了 LoRA 全部冻结”，就真的照做了。可是分类头是*新*的：预训练从没见过它，权重是随机的。冻结了，它就永远是随机的：

# %%
frozen = copy.deepcopy(base)
replace_linear_with_lora(frozen, rank=16, alpha=32, skip=["head"])
tell(freeze_all_but_lora(frozen))
frozen_history = train(frozen)

# %%
import matplotlib.pyplot as plt

from lorafy.report.style import BLUE, VERMILLION

figure, axes = plt.subplots(figsize=(7, 3.6))
for one, colour, words in (
    (mended_history, BLUE, label(en="head is trained", zh="分类头参与训练")),
    (frozen_history, VERMILLION, label(en="head is frozen", zh="分类头被冻结")),
):
    axes.plot(one.steps, one.train_losses, "o-", color=colour, label=words)
axes.set_xlabel(label(en="step", zh="步数"))
axes.set_ylabel(label(en="train loss (nats)", zh="训练损失（nat）"))
axes.set_ylim(0)
axes.legend()
plt.show()
say(
    en=f"Test accuracy: {calc_accuracy(test_loader, mended):.1%} with a trained head, {calc_accuracy(test_loader, frozen):.1%} with a frozen one.",
    zh=f"测试准确率：分类头参与训练 {calc_accuracy(test_loader, mended):.1%}，分类头被冻结 {calc_accuracy(test_loader, frozen):.1%}。",
)

# %% [markdown] lang="en"
# Compare the two curves. LoRA can work around a frozen head: it bends the vectors until they fit two random directions.
# In a small model with many LoRA layers that may go well, so again nothing looks wrong. But what you save is then tied to *this* random
# head. The friend builds the model with another random seed, as everybody does, and loads your adapter:

# %% [markdown] lang="zh"
# 比较两条曲线。LoRA 能绕过被冻结的分类头：它把向量掰弯，直到合上那两个随机方向。在一个装了很多 LoRA 层的小模型里，这有可能效果还不错，于是又看不出问题。但这样保存下来的东西就和*这一个*随机的分类头绑死了。朋友搭模型时用的是另一个随机种子（人人都是如此），再装上你的适配器：

# %%
friends_base = copy.deepcopy(base)
friends_base.head = make_base(seed=7).head  # the same base, but a new head is drawn anew
say(en="Head frozen, not in the adapter:", zh="分类头被冻结，没有存进适配器：")
compare(frozen, at_a_friends(frozen, [], friends_base))
say(en="Head trained and saved with the adapter:", zh="分类头参与训练，并与适配器一起保存：")
compare(mended, at_a_friends(mended, ["head"], friends_base))

# %% [markdown] lang="en"
# **Mended** by one word: `also=["head"]`, when freezing *and* when saving. (In peft it is `modules_to_save`.) The rule behind
# both bugs: *what is trained, what is saved and what is claimed must be the same list.*
#
# ## Merge and unmerge
#
# After training, the thin way can be added into the weight: $W' = W + s B A$. The merged layer is a plain `nn.Linear` again and costs
# nothing extra. The paper stresses this: no additional inference latency.

# %% [markdown] lang="zh"
# **改正**只要一个词：`also=["head"]`，冻结时*和*保存时都要写。（peft 里叫 `modules_to_save`。）两个错误背后是同一条规矩：*训练了什么、保存了什么、嘴上说了什么，必须是同一份清单。*
#
# ## 合并与拆开
#
# 训练完，可以把那条窄支路加进权重里：$W' = W + s B A$。合并后的层又是普通的 `nn.Linear`，没有任何额外开销。论文特别强调这一点：推理时没有额外延迟。

# %%
import time

from lorafy.scratch import merge_lora, unmerge_lora

merged = merge_lora(mended)
parted = unmerge_lora(merged, mended)


def seconds(model, repeats=3):
    """The fastest of a few passes over the test messages."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        predict(test_loader, model)
        times.append(time.perf_counter() - start)
    return min(times)


with_lora, _ = predict(test_loader, mended)
for words, other in (
    (label(en="merged", zh="合并后"), merged),
    (label(en="merged, then unmerged", zh="合并再拆开"), parted),
):
    logits, _ = predict(test_loader, other)
    difference = (logits - with_lora).abs().max().item()
    assert difference < 1e-4
    say(
        en=f"{words}: logits differ by at most {difference:.1e}, {(logits.argmax(-1) != with_lora.argmax(-1)).sum().item()} answers differ",
        zh=f"{words}：logits 最多相差 {difference:.1e}，{(logits.argmax(-1) != with_lora.argmax(-1)).sum().item()} 个答案不同",
    )
say(
    en=f"{count_parameters(mended)[1]:,} parameters with LoRA, {count_parameters(merged)[1]:,} merged, {count_parameters(base)[1]:,} in the base.",
    zh=f"带 LoRA 时 {count_parameters(mended)[1]:,} 个参数，合并后 {count_parameters(merged)[1]:,} 个，基座 {count_parameters(base)[1]:,} 个。",
)
say(
    en=f"All test messages: {seconds(mended):.2f} s with LoRA beside, {seconds(merged):.2f} s merged.",
    zh=f"全部测试短信：LoRA 在旁边时 {seconds(mended):.2f} 秒，合并后 {seconds(merged):.2f} 秒。",
)

# %% [markdown] lang="en"
# The same answers, up to rounding. Unmerging takes the update off again, so that you can put another adapter on the same base. It is
# exact only to rounding, because $(W + U) - U$ rounds twice. So keep the base; do not build a long chain of merge and unmerge.
#
# ## Exercise
#
# Put LoRA on the attention only (skip the feed-forward too). How many parameters does it train? Work it out on paper first:
# each of the 4 layers of an attention is 128 wide on both sides, there are 2 blocks, and $r = 16$.

# %% [markdown] lang="zh"
# 除了舍入误差，答案完全一样。拆开就是把更新再减掉，好在同一个基座上换另一个适配器。它只精确到舍入误差，因为 $(W + U) - U$ 要舍入两次。所以请保留好基座，不要反反复复地合并、拆开。
#
# ## 练习
#
# 只给注意力装 LoRA（前馈网络也跳过）。要训练多少个参数？先在纸上算：每个注意力有 4 个层，两边都宽 128；一共 2 个模块，$r = 16$。

# %%
attention_only = copy.deepcopy(base)
answer = replace_linear_with_lora(attention_only, rank=16, alpha=32, skip=["head", "feed_forward"])
assert answer.num_parameters == 2 * 4 * 16 * (128 + 128)
say(
    en=f"Counted: {answer.num_layers} layers, {answer.num_parameters:,} parameters.",
    zh=f"数出来：{answer.num_layers} 层，{answer.num_parameters:,} 个参数。",
)
say(
    en=f"By hand: 2 blocks x 4 layers x 16 x (128 + 128) = {2 * 4 * 16 * (128 + 128):,}",
    zh=f"手算：2 个模块 x 4 层 x 16 x (128 + 128) = {2 * 4 * 16 * (128 + 128):,}",
)

# %% [markdown] lang="en"
# ## What to remember
#
# - LoRA is a frozen linear layer and, beside it, $s B A x$. $B = 0$ makes the start equal to the base.
# - Freeze everything, then name what trains. A new head must train and must be saved.
# - Merged, LoRA costs nothing at inference.
#
# Next: a base that has really been pretrained, and a full training with its curves.

# %% [markdown] lang="zh"
# ## 记住这些
#
# - LoRA 就是一个冻结的线性层，旁边加上 $s B A x$。$B = 0$ 让起点等于基座。
# - 先全部冻结，再点名谁要训练。新的分类头必须训练，也必须保存。
# - 合并之后，LoRA 在推理时没有任何开销。
#
# 下一章：一个真正预训练过的基座，以及一次带曲线的完整训练。
