# %% [markdown] lang="en"
# # 3 · Data
#
# Most failures of fine-tuning are failures of data: rows that were lost while reading, the same text in training and in
# test, a model that answers the commonest label and looks good. They do not raise an error. So we look first, and count.
#
# At the end of this chapter you have batches of numbers that a model can read.

# %% [markdown] lang="zh"
# # 3 · 数据
#
# 微调失败，多半是数据出了问题：读文件时丢了行；同一条文本既在训练集又在测试集；模型总是回答最常见的标签，分数却很好看。这些问题都不会报错。所以我们先看、先数。
#
# 学完这一章，你会得到模型能读的数据：一批一批的数字。

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
# ## 3.1 The messages
#
# The task: is a short message **spam** (unwanted) or **ham** (wanted)? lorafy brings its own small set of messages, so
# that this notebook needs no network. They were written to be hard: some ham looks like spam, and the other way round.
#
# The well-known real set is UCI's
# [SMS Spam Collection](https://archive.ics.uci.edu/dataset/228/sms+spam+collection). If you have it, write its path
# into `DATA`: everything below works with it too.

# %% [markdown] lang="zh"
# ## 3.1 短信
#
# 任务：一条短信是垃圾短信（**spam**），还是正常短信（**ham**）？lorafy 自带一小批短信，所以这份笔记本不需要联网。它们是特意写得难一些的：有的正常短信像垃圾短信，有的垃圾短信又像正常短信。
#
# 大家熟知的真实数据集是 UCI 的 [SMS Spam Collection](https://archive.ics.uci.edu/dataset/228/sms+spam+collection)。如果你有它，把路径写进 `DATA`，下面的一切照样能运行。

# %%
import lorafy
from lorafy.scratch import LABELS, read_messages

DATA = None  # or the path of your SMSSpamCollection
path = Path(DATA or Path(lorafy.__file__).parent / "demo" / "sms.csv")
rows = read_messages(path)

say(en=f"{len(rows)} messages. The first five:", zh=f"共 {len(rows)} 条短信。前五条：")
for text, target in rows[:5]:
    print(f"{target}  {LABELS[target]:5} {text}")

# %% [markdown] lang="en"
# A model computes with numbers, so the labels are numbers: 0 for ham, 1 for spam. A row is a pair `(text, label)`.

# %% [markdown] lang="zh"
# 模型用数计算，所以标签也是数：0 代表 ham，1 代表 spam。每一行数据是一个二元组 `(text, label)`。

# %% [markdown] lang="en"
# ## 3.2 A trap while reading
#
# The real file has one message in each line: label, tab, text. It looks like a table, so many people read it with a csv
# reader. But a message may hold a single quotation mark, and to a csv reader a quotation mark at the start of a field
# means: *the text goes on until the next one*, over the ends of lines.

# %% [markdown] lang="zh"
# ## 3.2 读文件时的一个陷阱
#
# 真实文件里每行一条短信：标签、制表符、文本。它看起来像表格，所以很多人用 csv 读取器来读。但是短信里可能只有半个引号；而对 csv 读取器来说，一个字段开头的引号意味着：*文本一直延续到下一个引号为止*，换行也不算结束。

# %%
import csv

lines = ['ham\t"See you at six', "spam\tWin a prize, call now", 'ham\tHe said "maybe"', "ham\tOk"]
trap = Path("trap.txt")
trap.write_text("\n".join(lines) + "\n", encoding="utf-8")

with trap.open(encoding="utf-8", newline="") as file:
    by_csv = list(csv.reader(file, delimiter="\t"))

say(
    en=f"{len(lines)} lines. A csv reader finds {len(by_csv)} messages, read_messages finds {len(read_messages(trap))}.",
    zh=f"共 {len(lines)} 行。csv 读取器读到 {len(by_csv)} 条短信，read_messages 读到 {len(read_messages(trap))} 条。",
)
print(by_csv[0])

# %% [markdown] lang="en"
# Two labels were swallowed into a message, and nothing complained. With the real file some readers lose messages in this
# way. **After reading, compare the number of rows with what the data's description says.**

# %% [markdown] lang="zh"
# 有的标签被吞进了短信里，却没有任何报错。读真实文件时，有些读取器就是这样丢掉短信的。**读完之后，请把行数和数据说明里写的核对一下。**

# %% [markdown] lang="en"
# ## 3.3 The same text twice
#
# Chain messages and advertising are sent many times. If one copy is in the training set and another in the test set, the
# test asks for what was learnt by heart. So we keep each text once, **before** splitting.

# %% [markdown] lang="zh"
# ## 3.3 重复的文本
#
# 群发的消息和广告会被发送很多次。如果一份在训练集、另一份在测试集，那么测试考的就是死记硬背。所以在**划分之前**，每条文本只保留一份。

# %%
from lorafy.scratch import drop_repeated, random_split

unique = drop_repeated(rows)
say(
    en=f"{len(rows)} messages, {len(unique)} different ones: {len(rows) - len(unique)} repeat an earlier one.",
    zh=f"{len(rows)} 条短信，其中不同的有 {len(unique)} 条：有 {len(rows) - len(unique)} 条与前面的重复。",
)

# %% [markdown] lang="en"
# The bundled set was written without repetitions. To see what they would do, we make some: we put a hundred messages in
# a second time, as a chain message would come, and split without care.

# %% [markdown] lang="zh"
# 自带的数据是不重复地写成的。为了看看重复会造成什么，我们来制造一些：把一百条短信再放进去一份（就像群发那样），然后不加处理地划分。

# %%
careless = unique + unique[:100]
train, _, test = random_split(careless)
known = {text for text, _ in train}
leaked = sum(text in known for text, _ in test)
say(
    en=f"{leaked} of {len(test)} test messages ({leaked / len(test):.0%}) stand in the training set too.",
    zh=f"{len(test)} 条测试短信中，有 {leaked} 条（{leaked / len(test):.0%}）也在训练集里。",
)

# %% [markdown] lang="en"
# ## 3.4 Balance
#
# How many of each kind?

# %% [markdown] lang="zh"
# ## 3.4 类别平衡
#
# 两类各有多少？

# %%
from collections import Counter

import matplotlib.pyplot as plt

from lorafy.report.style import BLUE, VERMILLION
from lorafy.scratch import create_balanced_dataset

balanced = create_balanced_dataset(unique)
kinds = [label(en="as it is", zh="原始数据"), label(en="balanced", zh="平衡之后")]

figure, axes = plt.subplots(figsize=(6.5, 2.4))
for place, part in enumerate([unique, balanced]):
    counts = Counter(target for _, target in part)
    left = 0
    for target, colour in enumerate([BLUE, VERMILLION]):
        axes.barh(place, counts[target], left=left, color=colour, label=LABELS[target] if place == 0 else None)
        axes.text(left + counts[target] / 2, place, str(counts[target]), ha="center", va="center", color="white")
        left += counts[target]
axes.set_yticks([0, 1], kinds)
axes.invert_yaxis()
axes.grid(visible=False)
axes.set_xlabel(label(en="messages", zh="短信条数"))
axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
plt.show()

most = max(Counter(target for _, target in unique).values())
say(
    en=f"Always answering the commoner label is right in {most / len(unique):.1%} of all cases, and finds no spam at all.",
    zh=f"永远回答较多的那个标签，就有 {most / len(unique):.1%} 的正确率，却一条垃圾短信也找不出来。",
)
say(
    en=f"Balancing throws away {len(unique) - len(balanced)} messages.",
    zh=f"平衡会扔掉 {len(unique) - len(balanced)} 条短信。",
)

# %% [markdown] lang="en"
# The first sentence is why **accuracy alone says little** where labels are uneven: compare it with the commonest label's
# share. `create_balanced_dataset` draws as many messages of each kind as the rarer kind has. Then guessing gives one half,
# and accuracy is easy to read.
#
# The price: messages are thrown away, and the test no longer looks like real life, where spam is rare. For a small
# course that is fine. For real use keep all the data, look at precision and recall of the rare label (chapter 7), and
# balance the training set only, if at all.

# %% [markdown] lang="zh"
# 第一句话说明了为什么在标签不均衡时，**只看准确率没有多大意义**：要拿它和最常见标签所占的比例比较。`create_balanced_dataset` 从每一类里抽取与较少那一类相同数量的短信。这样瞎猜的准确率就是一半，准确率也就容易解读了。
#
# 代价是：有些短信被扔掉了，测试集也不再像真实生活（真实生活里垃圾短信很少）。小小的课程里这没有关系。实际应用时，请保留全部数据，看稀有类别的精确率和召回率（第 7 章）；真要平衡，也只平衡训练集。

# %% [markdown] lang="en"
# ## 3.5 Three parts
#
# - **train** (70 %): the model learns from it.
# - **validation** (10 %): we look at it during training, to choose (when to stop, which settings).
# - **test** (20 %): we look at it once, at the end. Whoever chooses by the test set no longer has one.
#
# A seed makes the split the same in each run.

# %% [markdown] lang="zh"
# ## 3.5 分成三份
#
# - **训练集**（train，70%）：模型从中学习。
# - **验证集**（validation，10%）：训练过程中用来做选择（何时停止，用哪组设置）。
# - **测试集**（test，20%）：只在最后看一次。谁根据测试集做选择，谁就不再有测试集了。
#
# 固定随机种子，每次运行的划分都相同。

# %%
train, validation, test = random_split(balanced, train_share=0.7, validation_share=0.1, seed=123)

for name, part in [("train", train), ("validation", validation), ("test", test)]:
    spam = sum(target for _, target in part)
    say(
        en=f"{name:11} {len(part):5} messages, {spam / len(part):4.0%} spam",
        zh=f"{name:11} {len(part):5} 条短信，其中垃圾短信占 {spam / len(part):4.0%}",
    )

texts = [{text for text, _ in part} for part in (train, validation, test)]
shared = len(texts[0] & texts[1]) + len(texts[0] & texts[2]) + len(texts[1] & texts[2])
say(
    en=f"Texts that stand in two parts: {shared}. Split again, the same: {random_split(balanced)[0] == train}.",
    zh=f"同时出现在两份里的文本：{shared} 条。再划分一次，结果相同：{random_split(balanced)[0] == train}。",
)

# %% [markdown] lang="en"
# The shares of spam differ a little from part to part: the cut is by chance, and the small parts feel it most. `lorafy` cuts
# each label by itself (*stratified*), so that they agree; you will see it in chapter 8.

# %% [markdown] lang="zh"
# 各份里垃圾短信的比例略有不同：划分是随机的，份越小越明显。`lorafy` 对每个标签分别划分（*分层抽样*），比例就一致了；第 8 章会看到。

# %% [markdown] lang="en"
# ## 3.6 From text to tokens
#
# A computer stores text as **bytes**, numbers from 0 to 255. We could feed bytes to the model: then no text is ever
# unknown, but texts become long. Whole words are short, but there are endlessly many, and a new one would be unknown.
#
# **Byte-pair encoding** (BPE, [Sennrich et al. 2016](https://arxiv.org/abs/1508.07909)) stands between. It starts with
# bytes and, again and again, joins the most frequent pair of neighbours to one new **token**. Frequent words become one
# token, rare ones several, and a text in any script can be written, in the worst case byte by byte.
#
# We train one here, in seconds, **on the training texts only**: the tokenizer is a part of the model too.

# %% [markdown] lang="zh"
# ## 3.6 从文本到词元（token）
#
# 计算机把文本存成**字节**，也就是 0 到 255 的数。我们可以直接把字节喂给模型：这样没有读不了的文本，但序列会很长。用整个单词则很短，可是单词无穷无尽，遇到新词就不认识了。
#
# **字节对编码**（BPE，[Sennrich et al. 2016](https://arxiv.org/abs/1508.07909)）取其中间。它从字节出发，一次又一次地把最常相邻的一对合并成一个新的**词元**（token）。常见的词成为一个词元，少见的词分成几个；任何文字都能表示，最坏的情况不过是一个字节一个字节地写。
#
# 我们当场训练一个，只要几秒钟，而且**只用训练集的文本**：分词器也是模型的一部分。

# %%
from course.tokenizer import ByteLevelBPE

train_texts = [text for text, _ in train]
tokenizer = ByteLevelBPE.train(train_texts, num_merges=500)

say(
    en=f"{tokenizer.vocab_size} tokens: 256 bytes, {len(tokenizer.merges)} learnt by merging, 1 for padding.",
    zh=f"共 {tokenizer.vocab_size} 个词元：256 个字节，{len(tokenizer.merges)} 个由合并学到，1 个用于填充。",
)
learnt = [tokenizer.decode([256 + number]) for number in range(len(tokenizer.merges))]
say(en=f"The first 20: {learnt[:20]}", zh=f"最先学到的 20 个：{learnt[:20]}")
say(en=f"The 20 longest: {sorted(learnt, key=len)[-20:]}", zh=f"最长的 20 个：{sorted(learnt, key=len)[-20:]}")

# %% [markdown] lang="en"
# The space belongs to the word that follows it: `' the'` is one token. Here is one message, in tokens and in numbers,
# and back.

# %% [markdown] lang="zh"
# 空格属于它后面的词：`' the'` 是一个词元。下面是一条短信，先变成词元和编号，再变回来。

# %%
example = test[0][0]
ids = tokenizer.encode(example)
print(example)
print(" | ".join(tokenizer.tokens(example)))
print(ids)
say(
    en=f"{len(example.encode('utf-8'))} bytes became {len(ids)} tokens. Back again, unchanged: {tokenizer.decode(ids) == example}.",
    zh=f"{len(example.encode('utf-8'))} 个字节变成了 {len(ids)} 个词元。还原后没有变化：{tokenizer.decode(ids) == example}。",
)

# %% [markdown] lang="en"
# And a text that it has never seen the like of: Chinese, and an emoji. It comes back whole, but in many more tokens
# for each character: nothing of it was in the training texts.

# %% [markdown] lang="zh"
# 再试一条它从没见过的文本：中文加表情符号。它同样能完整还原，只是每个字要用更多词元，因为训练文本里没有中文。

# %%
strange = "恭喜中奖 🎉"
ids = tokenizer.encode(strange)
say(
    en=f"{len(strange)} characters, {len(strange.encode('utf-8'))} bytes, {len(ids)} tokens; back again: {tokenizer.decode(ids)}",
    zh=f"{len(strange)} 个字符，{len(strange.encode('utf-8'))} 个字节，{len(ids)} 个词元；还原：{tokenizer.decode(ids)}",
)

# %% [markdown] lang="en"
# More merges make texts shorter, but each new token helps less than the one before, and each needs its own row of
# parameters in the model. We compare, on the validation texts.

# %% [markdown] lang="zh"
# 合并得越多，文本越短；但新词元的作用一个比一个小，而且每个词元在模型里都要占一行参数。我们在验证集的文本上比一比。

# %%
numbers = [0, 50, 100, 200, 300, 400, 500]
validation_texts = [text for text, _ in validation]
num_bytes = sum(len(text.encode("utf-8")) for text in validation_texts)
per_token = []
for number in numbers:
    shorter = ByteLevelBPE(tokenizer.merges[:number])  # the merges are learnt in order, so the first ones are a BPE too
    per_token.append(num_bytes / sum(len(shorter.encode(text)) for text in validation_texts))

figure, axes = plt.subplots(figsize=(6.5, 3))
axes.plot(numbers, per_token, color=BLUE, marker="o")
axes.set_ylim(bottom=0)
axes.set_xlabel(label(en="merges", zh="合并次数"))
axes.set_ylabel(label(en="bytes per token", zh="每个词元的字节数"))
plt.show()

# %% [markdown] lang="en"
# ## 3.7 Padding
#
# A batch is one table of numbers, so all its rows must be equally long. Shorter texts are filled up on the right with the
# **padding** token. How long should a row be? `SpamDataset` takes the longest training text. The other two parts must use
# the same length: what the model reads must not depend on which texts happen to be in the test set.

# %% [markdown] lang="zh"
# ## 3.7 填充
#
# 一个批次就是一张数字表，所以每一行必须一样长。短的文本在右边用**填充**词元补齐。一行应该多长？`SpamDataset` 取训练集中最长的文本。另外两份也必须用同样的长度：模型读到什么，不能取决于测试集里碰巧有哪些文本。

# %%
from lorafy.scratch import SpamDataset

train_set = SpamDataset.from_rows(train, tokenizer)
validation_set = SpamDataset.from_rows(validation, tokenizer, train_set.max_length)
test_set = SpamDataset.from_rows(test, tokenizer, train_set.max_length)

say(
    en=f"The longest training text has {train_set.max_length} tokens. ids: {tuple(train_set.ids.shape)}.",
    zh=f"最长的训练文本有 {train_set.max_length} 个词元。ids 的形状：{tuple(train_set.ids.shape)}。",
)
say(
    en=f"Texts that were longer and lost their end: {validation_set.num_cut} in validation, {test_set.num_cut} in test.",
    zh=f"因为更长而被截掉末尾的文本：验证集 {validation_set.num_cut} 条，测试集 {test_set.num_cut} 条。",
)

figure, axes = plt.subplots(figsize=(6.5, 2.8))
lengths = [train_set.lengths[train_set.labels == target].tolist() for target in (0, 1)]
axes.hist(lengths, bins=20, color=[BLUE, VERMILLION], label=list(LABELS))
axes.axvline(train_set.max_length, color="black", linestyle=":", linewidth=1.2)
axes.set_xlabel(label(en="length in tokens (dotted: the longest)", zh="长度（词元数；虚线：最长）"))
axes.set_ylabel(label(en="training messages", zh="训练短信条数"))
axes.legend()
plt.show()

# %% [markdown] lang="en"
# The picture shows one more thing: spam and ham differ in length. A model can use that, and so could a rule with no model
# at all. Keep it in mind when a result looks wonderful.
#
# The next picture shows twelve rows as the model gets them: colour is a real token, grey is padding.

# %% [markdown] lang="zh"
# 从图中还能看出一点：垃圾短信和正常短信的长度不同。模型可以利用这一点，不用模型的简单规则也可以。看到漂亮的结果时，请记住这件事。
#
# 下一幅图是模型实际读到的十二行：彩色是真正的词元，灰色是填充。

# %%
from matplotlib.colors import ListedColormap

real = train_set.ids[:12] != tokenizer.pad_id
kind = real * (1 + train_set.labels[:12, None])  # 0 padding, 1 a token of ham, 2 a token of spam

figure, axes = plt.subplots(figsize=(8.5, 2.6))
axes.imshow(
    kind, aspect="auto", interpolation="nearest", cmap=ListedColormap(["#E6E9ED", BLUE, VERMILLION]), vmin=0, vmax=2
)
axes.set_xlabel(
    label(en="place in the row (blue ham, orange spam, grey padding)", zh="在行中的位置（蓝：ham，橙：spam，灰：填充）")
)
axes.set_ylabel(label(en="message", zh="短信"))
axes.set_yticks([])
axes.grid(visible=False)
plt.show()

padding = 1 - train_set.lengths.sum().item() / train_set.ids.numel()
say(en=f"Padding is {padding:.0%} of the whole table.", zh=f"整张表里，填充占了 {padding:.0%}。")

# %% [markdown] lang="en"
# Because padding stands to the right, the place of the last **real** token differs from row to row. The data set keeps the
# `lengths`, and chapter 4 shows what happens when a model reads the last *place* instead.
#
# ## 3.8 Batches
#
# The model sees a few messages at a time, shuffled anew in each pass. `make_loader` does that, with a random generator of
# its own, so that each run sees the same order.

# %% [markdown] lang="zh"
# 因为填充在右边，每一行最后一个**真正的**词元位置各不相同。数据集保存了 `lengths`；第 4 章会展示，如果模型去读最后一个*位置*会怎么样。
#
# ## 3.8 批次
#
# 模型每次看几条短信，每过一遍数据都重新打乱顺序。这由 `make_loader` 完成，它有自己的随机数生成器，所以每次运行的顺序都相同。

# %%
from lorafy.scratch import make_loader

loader = make_loader(train_set, batch_size=8, shuffle=True)
batch = next(iter(loader))

say(
    en=f"{len(loader)} batches. One: ids {tuple(batch.ids.shape)}, lengths {tuple(batch.lengths.shape)}, labels {tuple(batch.labels.shape)}.",
    zh=f"共 {len(loader)} 个批次。其中一个：ids {tuple(batch.ids.shape)}，lengths {tuple(batch.lengths.shape)}，labels {tuple(batch.labels.shape)}。",
)
for ids, length, target in zip(*batch, strict=True):
    last = tokenizer.decode([ids[length - 1].item()])
    print(f"{LABELS[target]:5} {length:3}  ...{tokenizer.decode(ids.tolist())[-50:]!r}  -> {last!r}")

# %% [markdown] lang="en"
# Each line: label, length, the end of the text, and its last real token, the place where the model of chapter 4 will read its
# answer. **Always decode a batch and look at it.** It costs a minute and finds most mistakes.

# %% [markdown] lang="zh"
# 每一行依次是：标签、长度、文本的末尾，以及最后一个真正的词元；第 4 章的模型就从那里读出答案。**请一定把批次解码出来看一看。**只花一分钟，却能发现大部分错误。

# %% [markdown] lang="en"
# ## Exercise
#
# All rows are as long as the longest training text. Suppose we cut each batch of 8 after its own longest text. What share of the
# computed places would still be padding? And if we first sorted the messages by length?

# %% [markdown] lang="zh"
# ## 练习
#
# 现在所有行都和最长的训练文本一样长。假如每个 8 条的批次只补到本批最长的文本，计算的位置里还有多大比例是填充？如果先按长度给短信排序呢？


# %%
def padding_share(lengths: list[int]) -> float:
    batches = [lengths[i : i + 8] for i in range(0, len(lengths), 8)]
    return 1 - sum(lengths) / sum(len(batch) * max(batch) for batch in batches)


lengths = train_set.lengths.tolist()
say(
    en=f"All rows alike: {padding:.0%}. Cut per batch: {padding_share(lengths):.0%}. Sorted first: {padding_share(sorted(lengths)):.1%}.",
    zh=f"所有行等长：{padding:.0%}。按批截短：{padding_share(lengths):.0%}。先排序再分批：{padding_share(sorted(lengths)):.1%}。",
)

# %% [markdown] lang="en"
# Less padding is less work for the same result. But sorted batches always hold messages of like length, which is no longer
# a random order; production code (chapter 8) finds a way between.

# %% [markdown] lang="zh"
# 填充越少，同样的结果就越省计算。但排序后的批次里总是长度相近的短信，顺序就不再随机了；实用的代码（第 8 章）会在两者之间找到折中。
