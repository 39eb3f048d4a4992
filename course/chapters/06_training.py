# %% [markdown] lang="en"
# # 6 · Training, and reading its curves
#
# LoRA changes a model that has learnt something already. So in this chapter we do both halves ourselves:
#
# 1. **pretrain** the small GPT: it learns to guess the next token, from text alone;
# 2. **fine-tune** it with LoRA on ham and spam, look at it every few steps, and draw the curves.
#
# Then comes the question that a good experiment asks: did the pretraining help at all? We train the same LoRA on a base with
# *random* weights and compare.

# %% [markdown] lang="zh"
# # 6 · 训练，并看懂曲线
#
# LoRA 改动的是一个已经学过东西的模型。所以本章把两个阶段都自己做一遍：
#
# 1. **预训练**小 GPT：只靠文本，学着猜下一个词元；
# 2. 用 LoRA 在 ham/spam 上**微调**，每隔若干步评估一次，并画出曲线。
#
# 然后提一个好实验该提的问题：预训练到底有没有用？我们把同样的 LoRA 装到*随机*权重的基座上，比一比。

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
# ## Data
#
# As in chapter 3: balanced, cut into train, validation and test, a tokenizer that has seen only training text. Pretraining
# needs no labels, so it may use every message that is not in validation or test: also those that balancing left out.

# %% [markdown] lang="zh"
# ## 数据
#
# 和第 3 章一样：两类平衡，切成训练、验证、测试三份，分词器只见过训练文本。预训练不需要标签，所以只要不在验证集和测试集里的短信都可以用，平衡时落选的那些也能用。

# %%
import lorafy.demo
from course.tokenizer import ByteLevelBPE
from lorafy.scratch import (
    SpamDataset,
    create_balanced_dataset,
    drop_repeated,
    make_loader,
    random_split,
    read_messages,
)

DATA = None  # or the path of your SMSSpamCollection
path = DATA or Path(lorafy.demo.__file__).with_name("sms.csv")

every_row = drop_repeated(read_messages(path))
train_rows, validation_rows, test_rows = random_split(create_balanced_dataset(every_row))
held_out = {text for text, _ in validation_rows + test_rows}
unlabelled_rows = [row for row in every_row if row[0] not in held_out]

tokenizer = ByteLevelBPE.train([text for text, _ in train_rows])
train_set = SpamDataset.from_rows(train_rows, tokenizer)
max_length = train_set.max_length
validation_set = SpamDataset.from_rows(validation_rows, tokenizer, max_length)
test_set = SpamDataset.from_rows(test_rows, tokenizer, max_length)
unlabelled_set = SpamDataset.from_rows(unlabelled_rows, tokenizer, max_length)
say(
    en=f"train {len(train_set)}, validation {len(validation_set)}, test {len(test_set)}; text for pretraining: "
    f"{len(unlabelled_set)} messages, {unlabelled_set.lengths.sum().item():,} tokens",
    zh=f"训练 {len(train_set)} 条，验证 {len(validation_set)} 条，测试 {len(test_set)} 条；可用于预训练的文本："
    f"{len(unlabelled_set)} 条短信，{unlabelled_set.lengths.sum().item():,} 个词元",
)

# %% [markdown] lang="en"
# ## Two bases
#
# Both start with the same random weights. One stays random. The other is pretrained.
#
# The model is smaller than the defaults (256 wide, 4 blocks), so that this chapter takes seconds and not minutes. Change
# the numbers if you have time.

# %% [markdown] lang="zh"
# ## 两个基座
#
# 两个的随机初始权重完全相同。一个保持随机，另一个去预训练。
#
# 模型比默认值（宽 256，4 个模块）小，这样本章只要几秒钟，而不是几分钟。有时间的话可以自己改大。

# %%
import copy

from lorafy.scratch import SimpleGPTForClassification, count_parameters

random_base = SimpleGPTForClassification(
    tokenizer.vocab_size, max_length, width=128, num_heads=4, num_layers=2, hidden=256
).eval()
pretrained_base = copy.deepcopy(random_base)
say(
    en=f"{count_parameters(random_base)[1]:,} parameters in each base",
    zh=f"每个基座有 {count_parameters(random_base)[1]:,} 个参数",
)

# %% [markdown] lang="en"
# Pretraining: at every place of a text, guess the token that comes next. The loss is the cross-entropy, in nats. A model
# that knows nothing gives each token of a vocabulary of $V$ the same chance, so its loss is
#
# $$-\ln \frac{1}{V} = \ln V$$
#
# That is where the curve must begin. If yours begins elsewhere, look for a bug.

# %% [markdown] lang="zh"
# 预训练：在文本的每个位置上，猜下一个词元是什么。损失是交叉熵，单位是奈特（nat）。什么都不懂的模型给词表里 $V$ 个词元同样的机会，损失就是
#
# $$-\ln \frac{1}{V} = \ln V$$
#
# 曲线必须从这里开始。如果你的曲线从别处开始，就该找 bug 了。

# %%
import math

from lorafy.scratch import evaluating, next_token_loss, pretrain

pretraining = pretrain(pretrained_base, make_loader(unlabelled_set, batch_size=16, shuffle=True), epochs=4)


def held_out_loss(model):
    """Mean loss of a next token in the test messages, which no training has seen."""
    loader = make_loader(test_set, batch_size=64)
    with evaluating(model, loader):
        pairs = [next_token_loss(batch, model) for batch in loader]
    return sum(loss.item() * count for loss, count in pairs) / sum(count for _, count in pairs)


last_ten = sum(pretraining.losses[-10:]) / 10
say(
    en=f"ln V = {math.log(tokenizer.vocab_size):.2f}; loss of the first step {pretraining.losses[0]:.2f}, mean of the last ten {last_ten:.2f}",
    zh=f"ln V = {math.log(tokenizer.vocab_size):.2f}；第一步的损失 {pretraining.losses[0]:.2f}，最后十步平均 {last_ten:.2f}",
)
before, after = held_out_loss(random_base), held_out_loss(pretrained_base)
say(
    en=f"On messages it never saw: {before:.2f} before, {after:.2f} after: as if it chose among {math.exp(after):.0f} tokens, not {math.exp(before):.0f}.",
    zh=f"在没见过的短信上：之前 {before:.2f}，之后 {after:.2f}：好比从 {math.exp(after):.0f} 个词元里挑，而不是 {math.exp(before):.0f} 个。",
)
say(
    en=f"{pretraining.num_tokens:,} tokens in {pretraining.seconds:.0f} s",
    zh=f"{pretraining.num_tokens:,} 个词元，用时 {pretraining.seconds:.0f} 秒",
)

# %%
import matplotlib.pyplot as plt

from lorafy.report.style import BLUE, GREEN, MUTED, VERMILLION

figure, axes = plt.subplots(figsize=(7, 3.4))
axes.plot(range(1, len(pretraining.losses) + 1), pretraining.losses, color=GREEN, linewidth=1.2)
axes.axhline(math.log(tokenizer.vocab_size), color=MUTED, linestyle="--")
axes.text(len(pretraining.losses), math.log(tokenizer.vocab_size), r"$\ln V$", ha="right", va="bottom", color=MUTED)
axes.set_xlabel(label(en="step of pretraining", zh="预训练步数"))
axes.set_ylabel(label(en="loss of a next token (nats)", zh="下一个词元的损失（nat）"))
plt.show()

# %% [markdown] lang="en"
# If you see a jump once in each pass over the data: the last batch of a pass holds only the few messages that are left, so its
# loss depends on them.
#
# Be modest about this base. GPT-2 was pretrained on the text of millions of web pages; ours has seen a few hundred to a few thousand short
# messages. It knows some spelling and which words like to stand together. We shall see what that is worth.
#
# ## LoRA on the pretrained base
#
# Four lines do the work: put LoRA on, freeze the rest, train, draw. `eval_every` says how often we look; looking changes
# nothing in the training, because dropout is off and the random numbers are put back.
#
# The learning rate is higher than the default 3e-4, because there are so few steps.

# %% [markdown] lang="zh"
# 如果每过一遍数据就看到一次跳动：每遍的最后一批只有剩下的几条短信，它的损失就全看这几条了。
#
# 对这个基座的期望不要太高。GPT-2 的预训练读了几百万个网页的文本；我们的只看过几百到几千条短信。它学会了一点拼写，知道哪些词爱站在一起。这值多少，马上就知道。
#
# ## 在预训练基座上训练 LoRA
#
# 只要四步：装上 LoRA，冻结其余，训练，画图。`eval_every` 是多久看一次；看一眼不会影响训练，因为评估时关掉 dropout，随机数状态也会放回原处。
#
# 学习率比默认的 3e-4 高，因为总步数很少。

# %%
from lorafy.scratch import freeze_all_but_lora, replace_linear_with_lora, train_lora_model


def fine_tune(base, rank=16, alpha=32, epochs=3, learning_rate=1e-3):
    """LoRA and the head on a copy of the base; the same batches in the same order each time."""
    model = copy.deepcopy(base)
    replace_linear_with_lora(model, rank=rank, alpha=alpha, skip=["head"])
    freeze_all_but_lora(model, also=["head"])
    history = train_lora_model(
        model,
        make_loader(train_set, shuffle=True),
        make_loader(validation_set, batch_size=64),
        epochs=epochs,
        learning_rate=learning_rate,
        eval_every=max(1, epochs * len(train_set) // 8 // 8),
        eval_batches=8,
    )
    return model, history


tuned, history = fine_tune(pretrained_base)
print(
    label(
        en="step   loss: train  validation   accuracy: train  validation",
        zh="步数   损失：训练  验证         准确率：训练  验证",
    )
)
columns = (history.train_losses, history.validation_losses, history.train_accuracies, history.validation_accuracies)
for step, *losses, first, second in zip(history.steps, *columns, strict=True):
    print(f"{step:4d}         {losses[0]:.3f}       {losses[1]:.3f}             {first:.1%}       {second:.1%}")
trainable, everything = count_parameters(tuned)
say(
    en=f"trained {trainable:,} of {everything:,} parameters in {history.seconds:.1f} s",
    zh=f"训练了 {everything:,} 个参数中的 {trainable:,} 个，用时 {history.seconds:.1f} 秒",
)

# %%
from course.figures import plot_training_curves

picture = plot_training_curves(history, "lora_on_pretrained.png", language=LANGUAGE)
figure, axes = plt.subplots(figsize=(9.6, 7))
axes.imshow(plt.imread(picture))
axes.axis("off")
plt.show()

# %% [markdown] lang="en"
# How to read the four panels:
#
# - **Losses**: both should fall. If training falls and validation rises again, the model begins to learn the training
#   messages by heart (*overfitting*): stop earlier, or find more data.
# - **Accuracies**: they move in jumps, because a text is either right or wrong, and because `eval_batches=8` measures
#   training on only 64 messages, other ones each time. The loss is the finer instrument.
# - **Last points**: the numbers to report, training beside validation. A wide gap is overfitting again.
# - **Improvement**: from the first point to the last. The first point is the base with LoRA that does nothing yet.
#
# ## LoRA on a random base
#
# Now the control experiment. Everything is the same: data, batches, LoRA, learning rate. Only the base has never learnt
# anything.

# %% [markdown] lang="zh"
# 四个小图怎么看：
#
# - **损失**：两条都应该下降。训练损失下降而验证损失又升上去，说明模型开始死记训练短信（*过拟合*）：早点停，或者多找些数据。
# - **准确率**：它一跳一跳的，因为一条文本不是对就是错，也因为 `eval_batches=8` 让训练集每次只量 64 条、而且每次不同。损失是更细的刻度。
# - **最后的点**：要报告的数字，训练集和验证集并列。差距大，还是过拟合。
# - **提升**：从第一个点到最后一个点。第一个点就是 LoRA 还没起任何作用的基座。
#
# ## 在随机基座上训练 LoRA
#
# 现在做对照实验。数据、批次、LoRA、学习率全都一样，只有基座从来没学过任何东西。

# %%
tuned_random, history_random = fine_tune(random_base)

figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.6))
for one, colour, words in (
    (history, BLUE, label(en="pretrained base", zh="预训练基座")),
    (history_random, VERMILLION, label(en="random base", zh="随机基座")),
):
    left.plot(one.steps, one.validation_losses, "o-", color=colour, label=words)
    right.plot(one.steps, [100 * accuracy for accuracy in one.validation_accuracies], "o-", color=colour, label=words)
for axes in (left, right):
    axes.set_xlabel(label(en="step", zh="步数"))
left.set_ylabel(label(en="validation loss (nats)", zh="验证损失（nat）"))
right.set_ylabel(label(en="validation accuracy (%)", zh="验证准确率（%）"))
left.legend()
plt.show()

# %% [markdown] lang="en"
# ## Does it help? And why can a random base do it at all?
#
# Now the test set, which we have kept away from so far. Beside each accuracy stands its 95 % interval (Wilson's; chapter 7 explains
# it): with so few messages the true value may lie anywhere in it.
#
# And one more competitor, as simple as can be: a **bag of words**. It counts which words a message contains, forgets their
# order, and gives each word a weight (logistic regression). No attention, no layers, no pretraining.

# %% [markdown] lang="zh"
# ## 有用吗？随机基座凭什么也能行？
#
# 现在请出测试集，到目前为止我们一直没碰它。每个准确率旁边是它的 95% 置信区间（Wilson 区间，第 7 章解释）：短信这么少，真实值可能落在区间里的任何地方。
#
# 再请一位最简单的对手：**词袋**。它只数一条短信里有哪些词，不管顺序，给每个词一个权重（逻辑回归）。没有注意力，没有层，没有预训练。

# %%
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from lorafy.evaluation.metrics import wilson_interval
from lorafy.scratch import predict


def test_answers(model, dataset=test_set):
    """Right or wrong for each message."""
    logits, labels = predict(make_loader(dataset, batch_size=64), model)
    return (logits.argmax(-1) == labels).tolist()


bag = make_pipeline(CountVectorizer(), LogisticRegression(max_iter=2000))
bag.fit([text for text, _ in train_rows], [answer for _, answer in train_rows])
bag_answers = (bag.predict([text for text, _ in test_rows]) == [answer for _, answer in test_rows]).tolist()

results = {
    label(en="LoRA, pretrained base", zh="LoRA，预训练基座"): test_answers(tuned),
    label(en="LoRA, random base", zh="LoRA，随机基座"): test_answers(tuned_random),
    label(en="bag of words", zh="词袋"): bag_answers,
}
intervals = {name: wilson_interval(sum(answers), len(answers)) for name, answers in results.items()}
figure, axes = plt.subplots(figsize=(7, 2.6))
for place, (name, answers) in enumerate(results.items()):
    share, (low, high) = 100 * sum(answers) / len(answers), intervals[name]
    axes.plot([100 * low, 100 * high], [place, place], color=BLUE, linewidth=3, alpha=0.4)
    axes.plot(share, place, "o", color=BLUE)
    print(f"{share:5.1f} %  ({100 * low:.1f} - {100 * high:.1f} %)  {name}")
axes.set_yticks(range(len(results)), list(results))
axes.set_ylim(len(results) - 0.5, -0.5)
axes.set_xlabel(label(en="test accuracy (%), with its 95 % interval", zh="测试准确率（%），以及 95% 置信区间"))
plt.show()

# %% [markdown] lang="en"
# Two intervals that overlap widely cannot be told apart by this test. But both models answered the *same* messages, so there is
# a sharper question: on how many messages is only one of the two right? If both were equally good, that would be like tossing a
# coin for each of these messages.

# %% [markdown] lang="zh"
# 两个区间大幅重叠，说明这个测试分不出高下。不过两个模型回答的是*同一批*短信，所以可以问得更细：有多少条短信只有其中一个答对？如果两个一样好，那就好比对这些短信逐条抛硬币。

# %%
from scipy.stats import binomtest

pairs = list(zip(test_answers(tuned), test_answers(tuned_random), strict=True))
only_pretrained = sum(first and not second for first, second in pairs)
only_random = sum(second and not first for first, second in pairs)
chance = binomtest(only_pretrained, only_pretrained + only_random).pvalue if only_pretrained + only_random else 1.0
say(
    en=f"Only the pretrained one is right on {only_pretrained} messages, only the random one on {only_random}.",
    zh=f"只有预训练的答对：{only_pretrained} 条；只有随机的答对：{only_random} 条。",
)
say(
    en=f"Tossed coins would be that uneven or more with a probability of {chance:.2g}: "
    + ("hard to call luck." if chance < 0.05 else "that may well be luck."),
    zh=f"抛硬币抛出这么不均匀（或更甚）的概率是 {chance:.2g}："
    + ("很难说是运气。" if chance < 0.05 else "很可能只是运气。"),
)

# %% [markdown] lang="en"
# Still: the random base is far better than a coin. How can LoRA get this out of random weights? Two measurements.
#
# **First**, look at the bag of words above: with nothing but *which words occur*, how far does it get beside the GPTs? **Second**, we shuffle the words of each test
# message, so that it makes no sense any more, and ask the trained models again.

# %% [markdown] lang="zh"
# 不过，随机基座比抛硬币好得多。LoRA 怎么能从随机权重里变出这个来？量两样东西。
#
# **第一**，再看一眼上面的词袋：它只看*出现了哪些词*，和两个 GPT 相比能走多远？**第二**，把每条测试短信里的词打乱，让它完全不通，再去问训练好的模型。

# %%
import random

generator = random.Random(0)
shuffled_rows = [(" ".join(generator.sample(words := text.split(), len(words))), answer) for text, answer in test_rows]
shuffled_set = SpamDataset.from_rows(shuffled_rows, tokenizer, max_length)
print(f"{test_rows[0][0]}\n-> {shuffled_rows[0][0]}\n")
for name, model in (
    (label(en="pretrained base", zh="预训练基座"), tuned),
    (label(en="random base", zh="随机基座"), tuned_random),
):
    in_order, shuffled = (sum(test_answers(model, data)) / len(test_set) for data in (test_set, shuffled_set))
    say(
        en=f"{name}: {in_order:.1%} in order, {shuffled:.1%} with shuffled words",
        zh=f"{name}：原来的顺序 {in_order:.1%}，词打乱后 {shuffled:.1%}",
    )

# %% [markdown] lang="en"
# Compare the two columns. Whatever stays after shuffling came from the words alone. That is the answer: this task is mostly
# about *which words occur*. And chapter 4 showed that untrained attention is nearly an average over the tokens so far. So a random base already hands a
# bag of words to LoRA and the head, and they only have to weigh it.
#
# The lesson reaches further than spam. **A high accuracy does not prove that a model understands.** Compare with a bag of words
# before you praise a large model. On tasks where order matters ("not good, but bad" against "not bad, but good"), it falls
# behind a base that was pretrained well: docs/course-results.md has the measurement on film reviews (SST-2). Chapter 8 takes
# such a base (MiniLM).
#
# ## Exercise
#
# How much of the pretrained base's result is the *base*, and how much is LoRA? Train the head alone, without any LoRA, on both
# bases.

# %% [markdown] lang="zh"
# 比较这两列。打乱之后还剩下的，全是词本身的功劳。答案就在这里：这个任务主要看*出现了哪些词*。第 4 章又看到，没训练过的注意力几乎就是对前面词元求平均。所以随机基座本来就把一个“词袋”交给了 LoRA 和分类头，它们只要给词加权就行了。
#
# 这个教训不限于垃圾短信。**准确率高，不能证明模型理解了。** 在夸一个大模型之前，先和词袋比一比。在词序要紧的任务上（“不是好，是坏”和“不是坏，是好”），词袋就落后于好好预训练过的基座：docs/course-results.md 里有在影评（SST-2）上的实测。第 8 章就用一个这样的基座（MiniLM）。
#
# ## 练习
#
# 预训练基座的成绩，有多少来自*基座*，有多少来自 LoRA？请在两个基座上都只训练分类头，不装 LoRA。

# %%
for name, base in (
    (label(en="pretrained base", zh="预训练基座"), pretrained_base),
    (label(en="random base", zh="随机基座"), random_base),
):
    head_only = copy.deepcopy(base).requires_grad_(False)
    head_only.head.requires_grad_(True)
    loaders = make_loader(train_set, shuffle=True), make_loader(validation_set, batch_size=64)
    train_lora_model(head_only, *loaders, epochs=2, learning_rate=1e-3, eval_every=1000, eval_batches=1)
    share = sum(test_answers(head_only)) / len(test_set)
    say(
        en=f"{name}: head alone {share:.1%} ({count_parameters(head_only)[0]:,} parameters trained)",
        zh=f"{name}：只训练分类头 {share:.1%}（训练 {count_parameters(head_only)[0]:,} 个参数）",
    )

# %% [markdown] lang="en"
# Hold these numbers against those of LoRA above: the difference is what the thin matrices added. And try other settings for
# the pretraining: on so little data a lower pretraining loss need not give a better classifier. Judge by the validation curve.
#
# ## What to remember
#
# - Know where a loss curve has to begin ($\ln V$, or $\ln 2$ for two classes) before you look where it ends.
# - Judge by the validation curve; touch the test set once.
# - Always run the control: a random base, and a bag of words.
#
# Next: how good is the model really, and is LoRA as good as training everything?

# %% [markdown] lang="zh"
# 把这些数字和上面 LoRA 的比一比：差别就是那些窄矩阵的贡献。再试试别的预训练设置：数据这么少时，预训练损失更低，分类器不一定更好。请看验证曲线来判断。
#
# ## 记住这些
#
# - 先知道损失曲线该从哪里开始（$\ln V$，两类分类是 $\ln 2$），再看它到哪里结束。
# - 用验证曲线做判断；测试集只碰一次。
# - 永远要做对照：随机基座，以及词袋。
#
# 下一章：这个模型到底有多好？LoRA 和全量训练相比又如何？
