# %% [markdown] lang="en"
# # 4 · A small GPT
#
# LoRA changes a model. So first we need a model that we understand to the last multiplication. In this chapter we build
# a small GPT step by step: embedding, attention, feed-forward, block, head. After each step we hold our own lines
# against `lorafy.scratch`, where the same model stands as classes. The two must give the same numbers.
#
# At the end we look at one small line that many programs get wrong: *which* token the head reads.

# %% [markdown] lang="zh"
# # 4 · 一个小小的 GPT
#
# LoRA 要改动的是一个模型，所以我们先要有一个自己完全看得懂的模型。本章一步一步搭一个小 GPT：嵌入、注意力、前馈网络、模块（block）、分类头。每走一步，都把自己写的几行代码和 `lorafy.scratch` 里的类对照一遍：两边算出来的数必须一样。
#
# 最后我们看一行很小、却有很多程序写错的代码：分类头到底读的是*哪一个*词元。

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
# ## From a text to numbers
#
# The data are those of chapter 3: short messages, `ham` (wanted) or `spam` (not wanted), as many of each. The tokenizer
# learns its tokens from the training messages alone.

# %% [markdown] lang="zh"
# ## 从文字到数字
#
# 数据和第 3 章一样：短信，`ham`（正常）或 `spam`（垃圾），两类一样多。分词器只从训练集里学习它的词元（token）。

# %%
import lorafy.demo
from course.tokenizer import ByteLevelBPE
from lorafy.scratch import SpamDataset, create_balanced_dataset, drop_repeated, random_split, read_messages

DATA = None  # or the path of your SMSSpamCollection
path = DATA or Path(lorafy.demo.__file__).with_name("sms.csv")

rows = create_balanced_dataset(drop_repeated(read_messages(path)))
train_rows, validation_rows, test_rows = random_split(rows)
tokenizer = ByteLevelBPE.train([text for text, _ in train_rows])
train_set = SpamDataset.from_rows(train_rows, tokenizer)
test_set = SpamDataset.from_rows(test_rows, tokenizer, train_set.max_length)

text = "Win a free phone today!"
ids = tokenizer.encode(text)
print(tokenizer.tokens(text))
print(ids)
say(
    en=f"{len(text)} characters became {len(ids)} tokens; the vocabulary has {tokenizer.vocab_size} of them.",
    zh=f"{len(text)} 个字符变成了 {len(ids)} 个词元；词表里一共有 {tokenizer.vocab_size} 个词元。",
)

# %% [markdown] lang="en"
# ## Embedding: a number becomes a vector
#
# A token's id is only a name. The model keeps one vector for each token (*what* it is) and one for each position
# (*where* it stands), and adds the two. All these vectors start as small random numbers; training gives them a meaning.
#
# We take a tiny width of 32, so that there is something to look at.

# %% [markdown] lang="zh"
# ## 嵌入：一个编号变成一个向量
#
# 词元的编号只是一个名字。模型为每个词元存一个向量（它*是什么*），为每个位置也存一个向量（它*在哪里*），然后把两者相加。这些向量一开始都是很小的随机数，训练才让它们有了意义。
#
# 为了看得清楚，这里宽度只取 32。

# %%
import torch

from lorafy.scratch import SimpleGPTForClassification

model = SimpleGPTForClassification(
    tokenizer.vocab_size, context_length=train_set.max_length, width=32, num_heads=4, num_layers=2, hidden=64
).eval()

row = torch.tensor([ids])  # one text: (1, T)
positions = torch.arange(len(ids))
what = model.token_embedding.weight[row]
where = model.position_embedding.weight[positions]
x = what + where

say(en=f"ids {tuple(row.shape)} -> vectors {tuple(x.shape)}", zh=f"编号 {tuple(row.shape)} -> 向量 {tuple(x.shape)}")
say(en="These three numbers are (texts, tokens, width).", zh="这三个数依次是（文本数，词元数，宽度）。")

# %% [markdown] lang="en"
# ## Attention: tokens look at each other
#
# Up to here each token knows only itself. *Attention* lets it collect what other tokens know. Each token makes three
# vectors with three linear layers:
#
# - the **query** $q$: what am I looking for?
# - the **key** $k$: what do I offer?
# - the **value** $v$: what do I hand over, if somebody wants me?
#
# How well token $t$ fits token $s$ is the scalar product of $q_t$ and $k_s$. Softmax makes shares of it:
#
# $$\mathrm{attention} = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt{d}} + \mathrm{mask}\right) V$$
#
# $\sqrt{d}$ keeps the numbers from growing with the width $d$. The mask is $-\infty$ wherever $s$ comes *after* $t$: a GPT
# reads from left to right and must not look into the future.
#
# With several **heads** the width is cut into pieces, and each piece looks in its own way. Let us write it for each head.

# %% [markdown] lang="zh"
# ## 注意力：词元互相看
#
# 到目前为止，每个词元只认识自己。*注意力*让它去收集别的词元知道的东西。每个词元用三个线性层算出三个向量：
#
# - **查询（query）** $q$：我想找什么？
# - **键（key）** $k$：我能提供什么？
# - **值（value）** $v$：如果有人要我，我交出什么？
#
# 词元 $t$ 和词元 $s$ 有多合拍，就看 $q_t$ 与 $k_s$ 的内积；softmax 再把它变成份额：
#
# $$\mathrm{attention} = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt{d}} + \mathrm{mask}\right) V$$
#
# 除以 $\sqrt{d}$，数值就不会随宽度 $d$ 变大。凡是 $s$ 在 $t$ *之后*的地方，掩码都是 $-\infty$：GPT 从左往右读，不许偷看后面。
#
# **多头**就是把宽度切成几段，每一段各有各的看法。下面我们一个头一个头地写出来。


# %%
import math


def attention_by_hand(layer, x):
    q, k, v = layer.query(x), layer.key(x), layer.value(x)  # each (1, T, width)
    num_tokens, size = x.shape[1], x.shape[2] // layer.num_heads
    future = torch.ones(num_tokens, num_tokens, dtype=torch.bool).triu(1)
    outputs, shares = [], []
    for head in range(layer.num_heads):
        part = slice(head * size, (head + 1) * size)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(size)  # (1, T, T)
        weights = scores.masked_fill(future, -torch.inf).softmax(-1)
        shares.append(weights)
        outputs.append(weights @ v[..., part])
    return layer.output(torch.cat(outputs, dim=-1)), torch.stack(shares, dim=1)


block = model.blocks[0]
normed = block.attention_norm(x)
ours, shares = attention_by_hand(block.attention, normed)
theirs = block.attention(normed)
difference = (ours - theirs).abs().max().item()
say(
    en=f"in {tuple(x.shape)}, out {tuple(ours.shape)}; largest difference from lorafy.scratch: {difference:.1e}",
    zh=f"输入 {tuple(x.shape)}，输出 {tuple(ours.shape)}；与 lorafy.scratch 的最大差别：{difference:.1e}",
)

# %% [markdown] lang="en"
# Zero, or no more than rounding (the same numbers, added up in another order). Here is what the first head looks at. Read
# it row by row: each row shares out 100 % among the tokens up to itself.

# %% [markdown] lang="zh"
# 差别是零，或者只是舍入误差（同样的数，相加的顺序不同）。下面是第一个头在看什么。请一行一行地看：每一行把 100% 分给自己和前面的词元。

# %%
import matplotlib.pyplot as plt

names = [repr(token)[1:-1] for token in tokenizer.tokens(text)]
figure, axes = plt.subplots(figsize=(6.4, 5.2))
image = axes.imshow(shares[0, 0].detach(), cmap="Blues", vmin=0, vmax=1)
axes.set_xticks(range(len(names)), names, rotation=60)
axes.set_yticks(range(len(names)), names)
axes.set_xlabel(label(en="token that is looked at", zh="被看的词元"))
axes.set_ylabel(label(en="token that looks", zh="正在看的词元"))
axes.grid(False)
figure.colorbar(image, label=label(en="share", zh="份额"))
plt.show()

even = 1 / torch.arange(1, len(ids) + 1)
away = (shares[0, 0].diagonal() - even).abs().max().item()
say(
    en=f"An even share of row t would be 1/t; on the diagonal we are at most {away:.3f} away from that.",
    zh=f"如果平均分配，第 t 行每份应是 1/t；在对角线上，实际值与它最多相差 {away:.3f}。",
)

# %% [markdown] lang="en"
# The model has not learnt anything yet, so each head shares out almost evenly: it takes a plain *average* of what came
# before. Keep that in mind. An average of word vectors tells which words occur, not in which order. In chapter 6 this explains
# a result that looks surprising.
#
# ## Feed-forward: each token thinks for itself
#
# After attention, each token goes alone through two linear layers: wider, a bend (GELU), and back.

# %% [markdown] lang="zh"
# 模型还什么都没学，所以每个头几乎是平均分配：就是把前面的内容简单地*平均*一下。请记住这一点：词向量的平均值说得出有哪些词，说不出词的顺序。第 6 章里有一个看似意外的结果，就要靠它来解释。
#
# ## 前馈网络：每个词元自己想
#
# 注意力之后，每个词元单独经过两个线性层：先变宽，弯一下（GELU），再变回来。


# %%
def gelu_by_hand(z):
    return z * 0.5 * (1 + torch.erf(z / math.sqrt(2)))  # z times the chance that a normal random number is below z


def feed_forward_by_hand(layer, x):
    wide = x @ layer.up.weight.T + layer.up.bias
    return gelu_by_hand(wide) @ layer.down.weight.T + layer.down.bias


ours, theirs = feed_forward_by_hand(block.feed_forward, x), block.feed_forward(x)
say(
    en=f"{x.shape[-1]} -> {block.feed_forward.up.out_features} -> {ours.shape[-1]} numbers for each token; "
    f"largest difference: {(ours - theirs).abs().max().item():.1e}",
    zh=f"每个词元：{x.shape[-1]} -> {block.feed_forward.up.out_features} -> {ours.shape[-1]} 个数；"
    f"最大差别：{(ours - theirs).abs().max().item():.1e}",
)

# %% [markdown] lang="en"
# ## The block: add, do not replace
#
# A block is attention and feed-forward, with two additions that make deep models trainable:
#
# - a **LayerNorm** before each part brings the numbers to one size;
# - a **residual connection** *adds* the result to what was there. Nothing that a token knew gets lost.
#
# $$x \leftarrow x + \mathrm{attention}(\mathrm{norm}_1(x)) \qquad x \leftarrow x + \mathrm{feedforward}(\mathrm{norm}_2(x))$$
#
# A GPT is nothing but blocks in a row. So the whole model fits into one short function.

# %% [markdown] lang="zh"
# ## 模块：是相加，不是替换
#
# 一个模块（block）就是注意力加前馈网络，再添两样让深模型训练得动的东西：
#
# - 每一部分之前有一个 **LayerNorm（层归一化）**，把数值调到同样的大小；
# - **残差连接**把结果*加*到原来的向量上，词元已经知道的东西不会丢。
#
# $$x \leftarrow x + \mathrm{attention}(\mathrm{norm}_1(x)) \qquad x \leftarrow x + \mathrm{feedforward}(\mathrm{norm}_2(x))$$
#
# GPT 不过是把模块一个接一个排起来。所以整个模型用一个很短的函数就写完了。


# %%
def norm_by_hand(layer, x):
    centred = x - x.mean(-1, keepdim=True)
    spread = (centred.pow(2).mean(-1, keepdim=True) + layer.eps).sqrt()
    return centred / spread * layer.weight + layer.bias


def gpt_by_hand(model, ids):
    x = model.token_embedding.weight[ids] + model.position_embedding.weight[: ids.shape[1]]
    for block in model.blocks:
        x = x + attention_by_hand(block.attention, norm_by_hand(block.attention_norm, x))[0]
        x = x + feed_forward_by_hand(block.feed_forward, norm_by_hand(block.feed_forward_norm, x))
    return norm_by_hand(model.norm, x)


ours, theirs = gpt_by_hand(model, row), model.hidden_states(row)
difference = (ours - theirs).abs().max().item()
assert difference < 1e-4
say(
    en=f"The whole model by hand: {tuple(ours.shape)}, largest difference {difference:.1e}.",
    zh=f"手写的整个模型：{tuple(ours.shape)}，最大差别 {difference:.1e}。",
)

# %% [markdown] lang="en"
# ## How large is it?
#
# The defaults of `SimpleGPTForClassification` are 256 wide, 8 heads, 4 blocks, 512 inside the feed-forward. Look at where
# its parameters are: LoRA will sit on the linear layers, and these are most of the model.

# %% [markdown] lang="zh"
# ## 它有多大？
#
# `SimpleGPTForClassification` 的默认值：宽 256，8 个头，4 个模块，前馈网络内部宽 512。看看参数都在哪里：LoRA 会装在线性层上，而线性层占了模型的大部分。

# %%
from lorafy.scratch import count_parameters

default = SimpleGPTForClassification(tokenizer.vocab_size, train_set.max_length)
total = count_parameters(default)[1]
parts = {
    label(en="embeddings", zh="嵌入"): [default.token_embedding, default.position_embedding],
    label(en="attention", zh="注意力"): [block.attention for block in default.blocks],
    label(en="feed-forward", zh="前馈"): [block.feed_forward for block in default.blocks],
    label(en="norms", zh="归一化"): [default.norm]
    + [norm for block in default.blocks for norm in (block.attention_norm, block.feed_forward_norm)],
    label(en="head", zh="分类头"): [default.head],
}
sizes = {name: sum(count_parameters(module)[1] for module in modules) for name, modules in parts.items()}
assert sum(sizes.values()) == total

figure, axes = plt.subplots(figsize=(7, 2.8))
bars = axes.barh(list(sizes), list(sizes.values()))
axes.bar_label(bars, [f"{size:,} ({size / total:.2%})" for size in sizes.values()], padding=4)
axes.set_xlabel(label(en="parameters", zh="参数个数"))
axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
axes.margins(x=0.35)
axes.invert_yaxis()
plt.show()
say(en=f"All together: {total:,} parameters.", zh=f"总共 {total:,} 个参数。")

# %% [markdown] lang="en"
# ## The head, and the token it reads
#
# We want one answer for the whole text: ham or spam. The head is a linear layer that reads *one* vector and gives two
# numbers (logits). Whose vector? Each token has seen only what stands before it. So only the **last** token has seen
# everything.
#
# But texts in a batch have different lengths, and the shorter ones are filled up with *padding*. Look at a row:

# %% [markdown] lang="zh"
# ## 分类头，以及它读的那个词元
#
# 我们要的是整条短信的一个答案：ham 还是 spam。分类头是一个线性层，它读*一个*向量，给出两个数（logits）。读谁的向量呢？每个词元只看过它前面的内容，所以只有**最后一个**词元看过全文。
#
# 可是一个批次里的文本有长有短，短的要用*填充（padding）*补齐。来看一行：

# %%
from lorafy.scratch import LABELS, make_loader

first = train_set[0]
length, width = int(first.lengths), train_set.max_length
say(
    en=f"This {LABELS[int(first.labels)]} message has {length} tokens. The row has {width} places, so {width - length} are padding.",
    zh=f"这条 {LABELS[int(first.labels)]} 短信有 {length} 个词元，而一行有 {width} 个位置，所以 {width - length} 个是填充。",
)
say(
    en=f"ids {first.ids[length - 3 : length + 3].tolist()} around place {length}; the padding token is {tokenizer.pad_id}.",
    zh=f"第 {length} 个位置前后的编号：{first.ids[length - 3 : length + 3].tolist()}；填充词元是 {tokenizer.pad_id}。",
)
mean = train_set.lengths.float().mean().item()
say(
    en=f"On average a training message has {mean:.0f} tokens, so {1 - mean / width:.0%} of all places are padding.",
    zh=f"训练短信平均有 {mean:.0f} 个词元，也就是说全部位置中有 {1 - mean / width:.0%} 是填充。",
)

# %% [markdown] lang="en"
# The common mistake is `hidden_states[:, -1]`: the last *position*. It looks right and runs without an error. But in a padded
# row that vector belongs to a padding token. What does this cost? We measure three things.
#
# **First: the same text gets another answer when it is padded more.**

# %% [markdown] lang="zh"
# 常见的错误是写 `hidden_states[:, -1]`，也就是最后一个*位置*。看着没错，运行也不报错；可是在有填充的行里，那个向量属于一个填充词元。代价是什么？我们来量三样东西。
#
# **第一：同一条短信，填充多少不同，答案就不同。**

# %%
import copy

torch.manual_seed(0)
right = SimpleGPTForClassification(
    tokenizer.vocab_size, train_set.max_length, width=128, num_heads=4, num_layers=2, hidden=256, dropout=0.0
).eval()
wrong = copy.deepcopy(right)  # the same weights; only the place that is read differs
wrong.read = "last_position"

print(label(en="padding   last real token      last position", zh="填充个数   最后一个真实词元      最后一个位置"))
real = torch.tensor([len(ids)])
answers = {"right": [], "wrong": []}
for num_padding in (0, 10, 40):
    padded = torch.tensor([ids + [tokenizer.pad_id] * num_padding])
    with torch.no_grad():
        answers["right"].append(right(padded, real)[0])
        answers["wrong"].append(wrong(padded, real)[0])
    print(f"{num_padding:7d}   {answers['right'][-1].numpy().round(4)!s:20} {answers['wrong'][-1].numpy().round(4)!s}")
changes = {name: (torch.stack(rows) - rows[0]).abs().max().item() for name, rows in answers.items()}
say(
    en=f"Largest change of a logit: {changes['right']:.1e} for the last real token, {changes['wrong']:.1e} for the last position.",
    zh=f"logit 的最大变化：读最后一个真实词元时为 {changes['right']:.1e}，读最后一个位置时为 {changes['wrong']:.1e}。",
)

# %% [markdown] lang="en"
# The left answer does not depend on padding, the right one does. With the mistake, a message gets one answer alone and another
# one in a batch beside a longer message.
#
# **Second: from the last position, all texts look alike.** There the head sees mostly "a padding token at the last place".
# We compare the vectors of pairs of test messages: a cosine of 1 means the same direction.

# %% [markdown] lang="zh"
# 左边的答案与填充无关，右边的却随填充而变。犯了这个错误，同一条短信单独输入是一个答案，和一条更长的短信放在一批里又是另一个答案。
#
# **第二：从最后一个位置看，所有文本都差不多。** 在那里，分类头看到的主要是“最后位置上有一个填充词元”。我们比较测试短信两两之间的向量：余弦为 1 表示方向相同。


# %%
def similarity(vectors):
    """Mean cosine of all pairs of different rows."""
    unit = torch.nn.functional.normalize(vectors, dim=-1)
    table = unit @ unit.T
    return (table.sum() - table.diagonal().sum()).item() / (table.numel() - len(table))


with torch.no_grad():
    hidden = right.hidden_states(test_set.ids)  # (N, max_length, width)
    at_last_real = similarity(hidden[torch.arange(len(test_set)), test_set.lengths - 1])
    at_last_position = similarity(hidden[:, -1])
say(
    en=f"Mean cosine between two messages: {at_last_real:.3f} at the last real token, {at_last_position:.3f} at the last position.",
    zh=f"两条短信之间的平均余弦：最后一个真实词元处 {at_last_real:.3f}，最后一个位置处 {at_last_position:.3f}。",
)

# %% [markdown] lang="en"
# **Third: training.** Both models start with the same weights and see the same batches in the same order. We train all
# parameters; LoRA comes in the next chapter.

# %% [markdown] lang="zh"
# **第三：训练。** 两个模型的初始权重相同，看到的批次和顺序也相同。这里训练全部参数；LoRA 下一章才出场。

# %%
from lorafy.report.style import BLUE, VERMILLION
from lorafy.scratch import calc_accuracy, train_lora_model

validation_set = SpamDataset.from_rows(validation_rows, tokenizer, train_set.max_length)
histories = {}
for name, each in {"right": right, "wrong": wrong}.items():
    loader = make_loader(train_set, shuffle=True)
    check = make_loader(validation_set, batch_size=64)
    histories[name] = train_lora_model(each, loader, check, epochs=2, learning_rate=5e-4, eval_every=12, eval_batches=8)

test_loader = make_loader(test_set, batch_size=64)
say(en=f"{len(test_set)} test messages:", zh=f"{len(test_set)} 条测试短信：")
say(
    en=f"last real token  {calc_accuracy(test_loader, right):.1%} right, trained in {histories['right'].seconds:.1f} s",
    zh=f"最后一个真实词元  正确率 {calc_accuracy(test_loader, right):.1%}，训练用时 {histories['right'].seconds:.1f} 秒",
)
say(
    en=f"last position    {calc_accuracy(test_loader, wrong):.1%} right, trained in {histories['wrong'].seconds:.1f} s",
    zh=f"最后一个位置      正确率 {calc_accuracy(test_loader, wrong):.1%}，训练用时 {histories['wrong'].seconds:.1f} 秒",
)

figure, axes = plt.subplots(figsize=(7, 3.6))
for name, colour, words in (
    ("right", BLUE, label(en="last real token", zh="最后一个真实词元")),
    ("wrong", VERMILLION, label(en="last position", zh="最后一个位置")),
):
    axes.plot(histories[name].steps, histories[name].validation_losses, "o-", color=colour, label=words)
axes.set_xlabel(label(en="step", zh="步数"))
axes.set_ylabel(label(en="validation loss (nats)", zh="验证损失（nat）"))
axes.legend()
plt.show()

# %% [markdown] lang="en"
# Training can repair a part of the damage: also a padding token can learn to collect the words. So the loss falls in both
# cases, and nobody notices anything. That is what makes the mistake so common. It still costs: the head starts from vectors
# that look alike, all the padding has to be computed, and one thing cannot be repaired at all. The answer hangs on
# padding. Let us ask both trained models again, now each message *without* any padding, as an app would do it.

# %% [markdown] lang="zh"
# 训练能补救一部分：填充词元也可以学会去收集前面的词。所以两种情况下损失都会下降，谁也发现不了问题，这正是这个错误如此常见的原因。但代价仍在：分类头的起点是一堆长得差不多的向量，所有填充都得计算，而且有一样东西根本补救不了：答案取决于填充。我们再问一次两个训练好的模型，这次每条短信都*不带*填充，就像一个应用程序会做的那样。

# %%
from lorafy.scratch import predict

for each, words in (
    (right, label(en="last real token", zh="最后一个真实词元")),
    (wrong, label(en="last position", zh="最后一个位置")),
):
    padded_logits, truth = predict(test_loader, each)
    with torch.no_grad():
        alone = torch.cat([each(item.ids[None, : item.lengths], item.lengths[None]) for item in test_set])
    changed = (alone.argmax(-1) != padded_logits.argmax(-1)).sum().item()
    before, after = ((logits.argmax(-1) == truth).float().mean().item() for logits in (padded_logits, alone))
    say(
        en=f"{words}: {changed} of {len(truth)} answers change without padding; accuracy {before:.1%} -> {after:.1%}.",
        zh=f"{words}：去掉填充后，{len(truth)} 个答案里变了 {changed} 个；准确率 {before:.1%} -> {after:.1%}。",
    )

# %% [markdown] lang="en"
# One word of caution about the accuracies above: the test set is small, so a few percent more or less can be luck. Chapter 7
# shows how to write that down. The number of answers that change is no matter of luck: with the last real token it is
# zero, always.
#
# ## Exercise
#
# Many models need a *padding mask* that forbids tokens to look at padding. Our GPT has none, and the answer at the last real
# token is right all the same. Why? Think first. Then change the padding ids to something wild and look whether the
# logits move.

# %% [markdown] lang="zh"
# 对上面的准确率要留个心眼：测试集很小，上下差几个百分点可能只是运气。第 7 章会讲怎样把这一点写清楚。而“变了几个答案”不是运气问题：读最后一个真实词元时，它永远是零。
#
# ## 练习
#
# 很多模型需要一个*填充掩码*，不许词元去看填充。我们的 GPT 没有，可是在最后一个真实词元处答案照样正确。为什么？先想一想，再把填充的编号换成乱七八糟的数，看看 logits 动不动。

# %%
clean = test_set.ids[:8]
lengths = test_set.lengths[:8]
is_padding = torch.arange(clean.shape[1]) >= lengths[:, None]
wild = torch.where(is_padding, torch.randint(0, tokenizer.vocab_size, clean.shape), clean)
with torch.no_grad():
    moved = (right(clean, lengths) - right(wild, lengths)).abs().max().item()
say(
    en=f"{is_padding.sum().item()} padding ids replaced by random tokens; the logits moved by {moved:.1e}.",
    zh=f"把 {is_padding.sum().item()} 个填充编号换成了随机词元；logits 变化了 {moved:.1e}。",
)

# %% [markdown] lang="en"
# **Answer.** Padding stands to the *right* of the text, and the causal mask lets a token look only to the left. No real token
# ever sees padding. (A model that reads in both directions, such as BERT, does need the padding mask.)
#
# ## What to remember
#
# - A GPT is embeddings, then blocks of attention and feed-forward, then a head. Most parameters sit in linear layers.
# - Only the last *real* token has read the whole text and no padding. Keep the lengths beside the ids.
#
# Next: LoRA for exactly these linear layers.

# %% [markdown] lang="zh"
# **答案。** 填充在文本的*右边*，而因果掩码只让词元往左看，所以没有一个真实词元看得到填充。（像 BERT 这样双向阅读的模型，就确实需要填充掩码。）
#
# ## 记住这些
#
# - GPT 就是：嵌入，然后一个个由注意力和前馈网络组成的模块，最后是分类头。大部分参数在线性层里。
# - 只有最后一个*真实*词元读过全文而没有读到填充。请把长度和编号放在一起保存。
#
# 下一章：给这些线性层装上 LoRA。
