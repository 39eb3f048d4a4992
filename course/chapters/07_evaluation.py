# %% [markdown] lang="en"
# # 7 · Evaluation: how good is it, and what does it cost?
#
# A number such as "95 % accuracy" is where the questions begin. How sure is it? Which mistakes hide in it? Can we trust the
# model when it says it is certain? And would training *all* parameters have been better?

# %% [markdown] lang="zh"
# # 7 · 评估：到底有多好，代价是多少？
#
# 看到“准确率 95%”这样的数字，问题才刚刚开始。它有多可靠？里面藏着哪些错误？模型说自己很有把握时，能信吗？如果训练*全部*参数，会不会更好？

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
# ## A model to evaluate
#
# As in chapter 6: pretrain the small GPT, then LoRA with $r = 16$ and $\alpha = 32$. To save time, pretraining reads the training messages
# only, at a higher learning rate than there.

# %% [markdown] lang="zh"
# ## 先要有一个模型
#
# 和第 6 章一样：预训练小 GPT，然后用 $r = 16$、$\alpha = 32$ 的 LoRA。为了省时间，预训练只读训练集里的短信，学习率也比那里高。

# %%
import copy

import lorafy.demo
from course.tokenizer import ByteLevelBPE
from lorafy.scratch import (
    LABELS,
    SimpleGPTForClassification,
    SpamDataset,
    create_balanced_dataset,
    drop_repeated,
    freeze_all_but_lora,
    make_loader,
    predict,
    pretrain,
    random_split,
    read_messages,
    replace_linear_with_lora,
    train_lora_model,
)

DATA = None  # or the path of your SMSSpamCollection
path = DATA or Path(lorafy.demo.__file__).with_name("sms.csv")

train_rows, validation_rows, test_rows = random_split(create_balanced_dataset(drop_repeated(read_messages(path))))
tokenizer = ByteLevelBPE.train([text for text, _ in train_rows])
train_set = SpamDataset.from_rows(train_rows, tokenizer)
max_length = train_set.max_length
validation_set = SpamDataset.from_rows(validation_rows, tokenizer, max_length)
test_set = SpamDataset.from_rows(test_rows, tokenizer, max_length)
test_loader = make_loader(test_set, batch_size=64)

base = SimpleGPTForClassification(tokenizer.vocab_size, max_length, width=128, num_heads=4, num_layers=2, hidden=256)
pretrain(base, make_loader(train_set, shuffle=True), epochs=4, learning_rate=2e-3)


def fine_tune(model, learning_rate, epochs=3):
    """Trains whatever is not frozen; the same batches in the same order each time."""
    return train_lora_model(
        model,
        make_loader(train_set, shuffle=True),
        make_loader(validation_set, batch_size=64),
        epochs=epochs,
        learning_rate=learning_rate,
        eval_every=1000,
        eval_batches=1,
    )


def with_lora(rank, alpha):
    model = copy.deepcopy(base)
    replace_linear_with_lora(model, rank=rank, alpha=alpha, skip=["head"])
    freeze_all_but_lora(model, also=["head"])
    return model


model = with_lora(16, 32)
history = fine_tune(model, learning_rate=1e-3)
say(
    en=f"trained in {history.seconds:.1f} s; {len(test_set)} test messages are waiting",
    zh=f"训练用时 {history.seconds:.1f} 秒；有 {len(test_set)} 条测试短信在等着",
)

# %% [markdown] lang="en"
# ## Accuracy, with its interval
#
# Accuracy is a share measured on a few messages. With other messages it would have come out a little different. A **95 %
# interval** says how much. For a share $\hat p$ of $n$ messages, Wilson's interval (1927) is
#
# $$\frac{\hat p + \frac{z^2}{2n} \pm z \sqrt{\frac{\hat p (1 - \hat p)}{n} + \frac{z^2}{4 n^2}}}{1 + \frac{z^2}{n}}, \qquad z = 1.96$$
#
# The simpler formula $\hat p \pm z \sqrt{\hat p (1 - \hat p) / n}$ is wrong near 100 %: for a perfect test it says
# "100 % for certain", and it can reach above 100 %.

# %% [markdown] lang="zh"
# ## 准确率，以及它的区间
#
# 准确率是在少数短信上量出来的比例，换一批短信，结果就会有点不同。**95% 置信区间**说的就是会差多少。$n$ 条短信里答对的比例为 $\hat p$ 时，Wilson 区间（1927）是
#
# $$\frac{\hat p + \frac{z^2}{2n} \pm z \sqrt{\frac{\hat p (1 - \hat p)}{n} + \frac{z^2}{4 n^2}}}{1 + \frac{z^2}{n}}, \qquad z = 1.96$$
#
# 更简单的公式 $\hat p \pm z \sqrt{\hat p (1 - \hat p) / n}$ 在接近 100% 时不能用：全对的时候它说“百分之百肯定”，有时还会超过 100%。

# %%
import math


def wilson(num_right, n, z=1.96):
    share = num_right / n
    centre = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)


logits, truth = predict(test_loader, model)
answers = logits.argmax(-1)
num_right = (answers == truth).sum().item()
accuracy = num_right / len(truth)
low, high = wilson(num_right, len(truth))
say(
    en=f"accuracy {accuracy:.1%}: {num_right} of {len(truth)}; 95 % interval {low:.1%} to {high:.1%}",
    zh=f"准确率 {accuracy:.1%}：{len(truth)} 条里对了 {num_right} 条；95% 区间 {low:.1%} 到 {high:.1%}",
)
for factor in (10, 100):
    low, high = wilson(factor * num_right, factor * len(truth))
    say(
        en=f"the same share of {factor * len(truth):,} messages would give {low:.1%} to {high:.1%}",
        zh=f"如果是 {factor * len(truth):,} 条短信，同样的比例会给出 {low:.1%} 到 {high:.1%}",
    )

# %% [markdown] lang="en"
# So a report "A has 84 %, B has 86 %" on a hundred messages says nothing. To halve the interval you need four times as
# many messages.
#
# ## Which mistakes? The confusion matrix
#
# Two kinds of mistakes hide in one accuracy. Spam in the inbox is a nuisance. A real message in the spam folder may be a disaster.
# The **confusion matrix** counts them apart.

# %% [markdown] lang="zh"
# 所以，在一百条短信上说“甲 84%，乙 86%”，等于什么也没说。想让区间缩小一半，短信要多四倍。
#
# ## 错在哪里？混淆矩阵
#
# 一个准确率里藏着两种错误。垃圾短信进了收件箱，只是讨厌；正常短信进了垃圾箱，可能误大事。**混淆矩阵**把它们分开来数。

# %%
import matplotlib.pyplot as plt
import torch

matrix = torch.zeros(2, 2, dtype=torch.long)
for true, answer in zip(truth.tolist(), answers.tolist(), strict=True):
    matrix[true, answer] += 1

figure, axes = plt.subplots(figsize=(4.4, 3.8))
axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1.2 * matrix.max().item())
for true in range(2):
    for answer in range(2):
        dark = matrix[true, answer] > 0.6 * matrix.max()
        axes.text(
            answer,
            true,
            f"{matrix[true, answer]}",
            ha="center",
            va="center",
            fontsize=16,
            color="white" if dark else "black",
        )
axes.set_xticks([0, 1], LABELS)
axes.set_yticks([0, 1], LABELS)
axes.set_xlabel(label(en="the model says", zh="模型的回答"))
axes.set_ylabel(label(en="truth", zh="真实类别"))
axes.grid(False)
plt.show()

(ham_right, ham_lost), (spam_missed, spam_caught) = matrix.tolist()
precision = spam_caught / max(1, spam_caught + ham_lost)
recall = spam_caught / (spam_caught + spam_missed)
say(
    en=f"precision {precision:.1%}: of {spam_caught + ham_lost} messages called spam, {spam_caught} are spam",
    zh=f"精确率 {precision:.1%}：被判为垃圾的 {spam_caught + ham_lost} 条里，{spam_caught} 条真是垃圾",
)
say(
    en=f"recall {recall:.1%}: of {spam_caught + spam_missed} spam messages, {spam_caught} were caught",
    zh=f"召回率 {recall:.1%}：{spam_caught + spam_missed} 条垃圾短信里，抓住了 {spam_caught} 条",
)

# %% [markdown] lang="en"
# ## Using it: classify_text
#
# `classify_text` encodes and pads a text exactly as in training and returns the class with a **confidence**: the
# probability after softmax. Put your own messages into the list.

# %% [markdown] lang="zh"
# ## 用起来：classify_text
#
# `classify_text` 用和训练时完全一样的方式编码、填充，返回类别和**置信度**，也就是 softmax 之后的概率。把你自己的短信放进列表试试。

# %%
from lorafy.demo import MESSAGES
from lorafy.scratch import classify_text

for text in [*MESSAGES, "See you at six?", "Reply YES to claim your reward"]:
    outcome = classify_text(text, model, tokenizer, max_length)
    print(f"{outcome.label:4s} {outcome.confidence:6.1%}   {text}")

# %% [markdown] lang="en"
# Do not be surprised if an answer is plainly wrong. This model has read a few hundred messages in its whole life. Chapter 8 gives the same task to a model
# that has read far more.
#
# ## Is a confident model right?
#
# Confidence is what the model *believes*. Is it right as often as it says? We sort the test messages by confidence and
# compare belief and truth in three equal groups.

# %% [markdown] lang="zh"
# 有的答案错得离谱，也不必惊讶：这个模型一辈子只读过几百条短信。第 8 章会把同样的任务交给一个读得多得多的模型。
#
# ## 有把握就一定对吗？
#
# 置信度是模型的*自信*。它说得有多准，就真的对得有多少吗？我们把测试短信按置信度排序，分成三组同样大小的，比较自信和事实。

# %%
confidences, _ = logits.softmax(-1).max(-1)
order = confidences.argsort()
for group, words in zip(
    order.tensor_split(3),
    (label(en="least sure", zh="最没把握"), label(en="middle", zh="中间"), label(en="most sure", zh="最有把握")),
    strict=True,
):
    right = answers[group] == truth[group]
    say(
        en=f"{words:10s}: believes {confidences[group].mean().item():.1%}, is right in {right.float().mean().item():.1%} of {len(group)}",
        zh=f"{words}：自信 {confidences[group].mean().item():.1%}，{len(group)} 条里实际答对 {right.float().mean().item():.1%}",
    )
say(
    en=f"all together: believes {confidences.mean().item():.1%}, is right in {accuracy:.1%}",
    zh=f"总体：自信 {confidences.mean().item():.1%}，实际答对 {accuracy:.1%}",
)

# %% [markdown] lang="en"
# If "believes" is above "is right", the model is *overconfident*. That is common after many epochs on little data: training pushes
# the probabilities towards 0 and 1 even when accuracy has stopped growing.
#
# ## Look at the mistakes
#
# Ten minutes of reading mistakes often teach more than a day of tuning. Here are those about which the model was most sure.

# %% [markdown] lang="zh"
# 如果“自信”高于“实际答对”，模型就是*过度自信*。数据少、轮数多时常常这样：准确率早就不涨了，训练还在把概率往 0 和 1 推。
#
# ## 看看错误
#
# 花十分钟读错误，往往比调一天参数学到的多。下面是模型错得最理直气壮的几条。

# %%
wrong = [index for index in order.flip(0).tolist() if answers[index] != truth[index]]
for index in wrong[:5]:
    text, true = test_rows[index]
    say(
        en=f"is {LABELS[true]}, called {LABELS[answers[index]]} ({confidences[index].item():.1%}): {text}",
        zh=f"实为 {LABELS[true]}，判为 {LABELS[answers[index]]}（{confidences[index].item():.1%}）：{text}",
    )

# %% [markdown] lang="en"
# Read them and ask: is the label right? Would you have known? Which word misled the model? Often a normal message uses the words of
# spam (a bank, a sum, "call"), or spam is written politely without any link. Chapter 6 showed that our model weighs mostly words, so these are exactly the messages
# on which it must fail.
#
# ## Full fine-tuning against LoRA
#
# Now the question that LoRA is about. We train the same base, on the same batches, once with all parameters and with four ranks of
# LoRA, and measure:
#
# - **parameters** that are trained;
# - **memory** that weights, gradients and AdamW's two averages take: the tensors' bytes after a real step, added up (activations come on top, for
#   all alike);
# - **time** of the training;
# - **disk**: the size of the file that must be kept for this task;
# - **accuracy**, with its interval.
#
# For each rank $\alpha = 2r$, in the paper's convention: rank 8 with alpha 16, rank 16 with alpha 32 and so on, always with
# the same factor. Full fine-tuning gets a lower learning rate, because it changes the weights themselves.

# %% [markdown] lang="zh"
# 一边读一边问：标签对吗？换了你，看得出来吗？是哪个词误导了模型？常见的是：正常短信用了垃圾短信的词（银行、金额、“call”），或者垃圾短信写得彬彬有礼，连个链接都没有。第 6 章看到，我们的模型主要是在给词加权，所以它栽在这样的短信上毫不奇怪。
#
# ## 全量微调与 LoRA
#
# 现在回到 LoRA 要解决的问题。同一个基座，同样的批次，一次训练全部参数，另外用四种秩训练 LoRA，并测量：
#
# - 训练的**参数**个数；
# - **内存**：权重、梯度和 AdamW 的两个平均值，真正走一步之后把这些张量的字节数加起来（激活值另算，大家都一样要有）；
# - 训练的**时间**；
# - **磁盘**：为这个任务必须保存的文件大小；
# - **准确率**及其区间。
#
# 每种秩都取 $\alpha = 2r$（论文的约定），于是秩 8 配 alpha 16、秩 16 配 alpha 32，系数都相同。全量微调直接改动权重本身，所以学习率低一些。

# %%
from lorafy.scratch import calc_loss_batch, count_parameters, lora_state_dict


def training_bytes(model):
    """Weights, gradients and optimizer state after one real step, on a copy."""
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad])
    calc_loss_batch(next(iter(make_loader(train_set))), model).backward()
    optimizer.step()
    tensors = list(model.parameters()) + [
        parameter.grad for parameter in model.parameters() if parameter.grad is not None
    ]
    tensors += [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def file_bytes(state, name):
    torch.save(state, name)
    return Path(name).stat().st_size


def measure(model, history, state):
    logits, truth = predict(test_loader, model)
    return {
        "parameters": count_parameters(model)[0],
        "memory": training_bytes(model) / 1e6,
        "seconds": history.seconds,
        "disk": file_bytes(state, "kept.pt") / 1e6,
        "right": (logits.argmax(-1) == truth).sum().item(),
    }


full = copy.deepcopy(base)
full_history = fine_tune(full, learning_rate=5e-4)
table = {label(en="full", zh="全量"): measure(full, full_history, full.state_dict())}
for rank in (8, 16, 32, 64):
    tuned, its_history = model, history  # rank 16 is trained already, above
    if rank != 16:
        tuned = with_lora(rank, 2 * rank)
        its_history = fine_tune(tuned, learning_rate=1e-3)
    table[f"LoRA r={rank}"] = measure(tuned, its_history, lora_state_dict(tuned, also=["head"]))

print(
    label(
        en="             parameters   memory MB   time s   disk MB   accuracy (95 % interval)",
        zh="             参数个数     内存 MB   时间 s   磁盘 MB   准确率（95% 区间）",
    )
)
for name, row in table.items():
    low, high = wilson(row["right"], len(test_set))
    print(
        f"{name:12s} {row['parameters']:10,d}   {row['memory']:9.2f}   {row['seconds']:6.1f}   {row['disk']:7.3f}   "
        f"{row['right'] / len(test_set):6.1%} ({low:.1%} - {high:.1%})"
    )

# %%
from lorafy.report.style import BLUE, VERMILLION

figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.2), sharey=True)
names = list(table)
for place, row in enumerate(table.values()):
    colour = VERMILLION if place == 0 else BLUE
    left.barh(place, row["memory"], color=colour)
    low, high = wilson(row["right"], len(test_set))
    right.plot([100 * low, 100 * high], [place, place], color=colour, linewidth=3, alpha=0.4)
    right.plot(100 * row["right"] / len(test_set), place, "o", color=colour)
left.set_yticks(range(len(names)), names)
left.invert_yaxis()
left.set_xlabel(label(en="weights, gradients, AdamW (MB)", zh="权重、梯度、AdamW（MB）"))
right.set_xlabel(label(en="test accuracy (%), 95 % interval", zh="测试准确率（%），95% 区间"))
plt.show()

# %% [markdown] lang="en"
# Look at the table with care, also at what does *not* fit the advertisement.
#
# - **Memory**: LoRA needs no gradients and no AdamW averages for the frozen weights. But its own matrices come on top, and at a
#   high rank in a narrow model they are no longer small. When is a LoRA as large as the matrix itself? At $r \cdot (\mathrm{in} + \mathrm{out}) = \mathrm{in} \cdot \mathrm{out}$:
#   the cell below counts it for our 128 x 128 and for a 4096 x 4096 of a large model.
# - **Time**: LoRA saves the gradients of the frozen weights, but it multiplies twice more in each layer. On a tiny model on a CPU the small products
#   cost as much as they save. The gain comes with the size of the model, above all as memory.
# - **Disk**: one base, and a small file for each task.
# - **Accuracy**: compare the intervals before you call a winner.

# %% [markdown] lang="zh"
# 请仔细看这张表，也看看哪些地方*不像*宣传的那样。
#
# - **内存**：冻结的权重不需要梯度，也不需要 AdamW 的平均值。可是 LoRA 自己的矩阵是另加的；模型窄而秩高时，它们就不小了。LoRA 什么时候和原来的矩阵一样大？当 $r \cdot (\mathrm{in} + \mathrm{out}) = \mathrm{in} \cdot \mathrm{out}$ 时：下面的单元格给我们的 128 x 128 和大模型的 4096 x 4096 都算一算。
# - **时间**：LoRA 省下了冻结权重的梯度，但每层多了两次乘法。在 CPU 上的小模型里，这些小乘法花掉的和省下的差不多。模型越大好处越大，首先是内存。
# - **磁盘**：基座只存一份，每个任务只存一个小文件。
# - **准确率**：先比区间，再说谁赢。

# %%
for size in (128, 4096):
    say(
        en=f"{size} x {size}: LoRA is as large as the matrix at r = {size * size // (2 * size):,}; "
        f"at r = 16 it has {16 * 2 * size / size**2:.2%} of its parameters.",
        zh=f"{size} x {size}：r = {size * size // (2 * size):,} 时 LoRA 和矩阵一样大；"
        f"r = 16 时参数是它的 {16 * 2 * size / size**2:.2%}。",
    )

# %% [markdown] lang="en"
# ## What to choose
#
# Starting points, and where they come from. Change one thing at a time and look at the *validation* loss.
#
# | setting | begin with | change it when |
# |---|---|---|
# | $r$ | 8 or 16 | much data, or new knowledge to learn: higher. The paper found very small ranks enough for many tasks (section 7.2). |
# | $\alpha$ | $2r$, and leave it | $\alpha$ and the learning rate both scale the update: tune one of them. For high ranks rsLoRA divides by $\sqrt{r}$ instead of $r$. |
# | layers | all linear layers | fewer only if memory is short; attention alone does worse at equal parameters in "LoRA Without Regret". |
# | learning rate | 1e-4 to 5e-4; a small model in few steps: 1e-3 | loss jumps: lower. It creeps: higher. In "LoRA Without Regret" the best rate for LoRA is about ten times that of full fine-tuning. |
# | epochs | 3 | validation loss rises: fewer. It still falls: more. |
# | head | trained and saved | never freeze a new head (chapter 5). |

# %% [markdown] lang="zh"
# ## 怎么选
#
# 下面是起点和它们的出处。一次只改一样，看*验证*损失。
#
# | 设置 | 从这里开始 | 什么时候改 |
# |---|---|---|
# | $r$ | 8 或 16 | 数据很多，或要学新知识：调高。论文发现，许多任务用很小的秩就够了（第 7.2 节）。 |
# | $\alpha$ | 取 $2r$，别再动 | $\alpha$ 和学习率都在缩放更新：调一个就行。秩很高时，rsLoRA 用 $\sqrt{r}$ 代替 $r$ 做除数。 |
# | 哪些层 | 全部线性层 | 内存不够才减少；“LoRA Without Regret”里，参数个数相同时，只装注意力效果更差。 |
# | 学习率 | 1e-4 到 5e-4；小模型、步数少：1e-3 | 损失乱跳：调低。下降太慢：调高。“LoRA Without Regret”里，LoRA 的最佳学习率约为全量微调的十倍。 |
# | 轮数 | 3 | 验证损失上升：减少。还在下降：增加。 |
# | 分类头 | 训练，并保存 | 新的分类头绝不冻结（第 5 章）。 |

# %% [markdown] lang="en"
# ## Exercise
#
# A real message in the spam folder is worse than spam in the inbox. So call a message spam only when its probability is above
# a **threshold** higher than one half. What does that do to both kinds of mistakes?

# %% [markdown] lang="zh"
# ## 练习
#
# 正常短信进垃圾箱，比垃圾短信进收件箱更糟。那就只在概率超过一个比一半更高的**阈值**时才判为垃圾。两种错误会怎样变化？

# %%
spam_probability = logits.softmax(-1)[:, 1]
for threshold in (0.5, 0.7, 0.9, 0.99):
    called_spam = spam_probability > threshold
    lost = (called_spam & (truth == 0)).sum().item()
    missed = (~called_spam & (truth == 1)).sum().item()
    say(
        en=f"threshold {threshold:.2f}: {lost:3d} ham messages lost, {missed:3d} spam messages missed",
        zh=f"阈值 {threshold:.2f}：误伤 {lost:3d} 条正常短信，漏掉 {missed:3d} 条垃圾短信",
    )

# %% [markdown] lang="en"
# **Answer.** A higher threshold loses fewer real messages and misses more spam. There is no free choice; choose by what a
# mistake costs, on the *validation* set, and report the test set once.
#
# ## Where to read on
#
# - [LoRA](https://arxiv.org/abs/2106.09685), Hu et al. 2021: sections 4 (the method) and 7 (which layers, which rank).
# - [rsLoRA](https://arxiv.org/abs/2312.03732), Kalajdzievski 2023: why $\alpha / \sqrt{r}$.
# - [LoRA+](https://arxiv.org/abs/2402.12354), Hayou et al. 2024: a higher learning rate for $B$ than for $A$.
# - [LoRA Without Regret](https://thinkingmachines.ai/blog/lora/), Thinking Machines 2025: when LoRA equals full fine-tuning.
#
# Next: the same steps with the real tool, on a base that was pretrained on far more text.

# %% [markdown] lang="zh"
# **答案。** 阈值越高，误伤的正常短信越少，漏掉的垃圾短信越多。没有白得的好处：按犯错的代价来选，在*验证*集上选，测试集只报告一次。
#
# ## 接着读什么
#
# - [LoRA](https://arxiv.org/abs/2106.09685)，Hu 等，2021：第 4 节（方法）和第 7 节（哪些层、多大的秩）。
# - [rsLoRA](https://arxiv.org/abs/2312.03732)，Kalajdzievski，2023：为什么是 $\alpha / \sqrt{r}$。
# - [LoRA+](https://arxiv.org/abs/2402.12354)，Hayou 等，2024：$B$ 的学习率比 $A$ 高。
# - [LoRA Without Regret](https://thinkingmachines.ai/blog/lora/)，Thinking Machines，2025：LoRA 什么时候能与全量微调打平。
#
# 下一章：用真正的工具走同样的步骤，基座也换成一个读过多得多文本的模型。
