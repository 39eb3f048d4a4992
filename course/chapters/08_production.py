# %% [markdown] lang="en"
# # 8 · From here to production
#
# You have written LoRA by hand. Now you do the same work with a tool: `lorafy`, on MiniLM, an encoder that has read a great
# deal of English before. First you prove that the tool's LoRA is *your* LoRA. Then you let it train. Then you turn every
# knob once, and see what it does: rank, alpha, learning rate, start values, layers.

# %% [markdown] lang="zh"
# # 8 · 从课堂到生产
#
# 你已经亲手写出了 LoRA。这一章改用工具 `lorafy` 来做同样的事，模型换成 MiniLM，一个读过大量英文的编码器。我们先证明工具里的 LoRA 就是*你写的* LoRA，再让它训练，最后把每个旋钮都拧一遍，看看各有什么作用：秩、alpha、学习率、初始值、加在哪些层上。

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
import json
import statistics
import time

import matplotlib.pyplot as plt
import torch
from torch import nn

import lorafy
from lorafy.report.style import BLUE, GREEN, MUTED, PURPLE, VERMILLION
from lorafy.scratch import (
    LABELS,
    LinearWithLoRA,
    SimpleGPTForClassification,
    SpamDataset,
    calc_accuracy,
    calc_loss_batch,
    calc_loss_loader,
    count_parameters,
    create_balanced_dataset,
    drop_repeated,
    freeze_all_but_lora,
    lora_layers,
    lora_state_dict,
    make_loader,
    pretrain,
    random_split,
    read_messages,
    replace_linear_with_lora,
)

# %% [markdown] lang="en"
# ## 8.1 The data, as in chapter 3
#
# As many ham as spam, repeated messages taken out, 70 % to train on, 10 % to validate, 20 % to test.

# %% [markdown] lang="zh"
# ## 8.1 数据：与第 3 章相同
#
# 正常短信和垃圾短信各取一样多，去掉重复的短信；70 % 用来训练，10 % 用来验证，20 % 用来测试。

# %%
DATA = None  # or the path of your SMSSpamCollection, e.g. "data/SMSSpamCollection"

path = Path(DATA) if DATA else Path(lorafy.__file__).parent / "demo" / "sms.csv"
messages = create_balanced_dataset(drop_repeated(read_messages(path)))
splits = dict(zip(("train", "validation", "test"), random_split(messages), strict=True))

for name, rows in splits.items():
    say(en=f"{name:10} {len(rows):5} messages", zh=f"{name:10} {len(rows):5} 条短信")

# %% [markdown] lang="en"
# ## 8.2 Is it the same LoRA?
#
# `lorafy` builds on **peft**, the library whose adapter files everybody can load. So the question is: does peft compute
# what you wrote? We give both the same model and the same $A$ and $B$. To give both the same numbers we use the export of
# `course/peft_export.py`: it writes your $A$ and $B$ as a peft adapter.
#
# We compute in float64, with about 16 digits. If the mathematics is the same, the difference can only be rounding.

# %% [markdown] lang="zh"
# ## 8.2 是同一个 LoRA 吗？
#
# `lorafy` 建立在 **peft** 之上，peft 的适配器文件是大家通用的格式。所以问题是：peft 算的，和你写的是一回事吗？我们给两边同一个模型、同样的 $A$ 和 $B$。办法是用 `course/peft_export.py` 把你的 $A$、$B$ 写成 peft 适配器文件，再让 peft 读进来。
#
# 计算用 float64，约有 16 位有效数字。如果数学上完全相同，差别就只能来自舍入。

# %%
from peft import PeftModel

from course.peft_export import export_to_peft
from course.tokenizer import ByteLevelBPE

tokenizer = ByteLevelBPE.train([text for text, _ in splits["train"]])
train_set = SpamDataset.from_rows(splits["train"], tokenizer, max_length=32)
held_out_set = SpamDataset.from_rows(splits["validation"] + splits["test"], tokenizer, max_length=32)

torch.manual_seed(0)
base = SimpleGPTForClassification(tokenizer.vocab_size, 32, width=64, num_heads=4, num_layers=2, hidden=128, dropout=0)
by_hand = copy.deepcopy(base).double()
replace_linear_with_lora(by_hand, rank=8, alpha=16, skip=["head"])
for _, layer in lora_layers(by_hand):  # B is zero at the start, and zeros would prove little
    nn.init.normal_(layer.lora.lora_B, std=0.1)
freeze_all_but_lora(by_hand)

folder = export_to_peft(by_hand, "exported-adapter")
by_peft = PeftModel.from_pretrained(copy.deepcopy(base).double(), folder, is_trainable=True)

# %% [markdown] lang="en"
# Now the comparison: the logits, the gradients, the losses of ten training steps, and the merged weights. For each we
# look for the *largest* difference.

# %% [markdown] lang="zh"
# 现在来比较：logits、梯度、十步训练的损失，以及合并后的权重。每一项都找出*最大*的差别。


# %%
def largest_difference(ours, theirs):
    return max((mine - other).abs().max().item() for mine, other in zip(ours, theirs, strict=True))


def trained(model):
    """A of every layer, then B of every layer, in the order of the model."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [p for letter in ("lora_A", "lora_B") for name, p in named if letter in name]


batches = list(make_loader(train_set, 16))[:10]
differences = {}
with torch.no_grad():
    logits = [model(batches[0].ids, batches[0].lengths) for model in (by_hand, by_peft)]
differences["logits"] = largest_difference(logits[:1], logits[1:])

for model in (by_hand, by_peft):
    calc_loss_batch(batches[0], model).backward()
gradients = [[p.grad for p in trained(model)] for model in (by_hand, by_peft)]
differences["gradients"] = largest_difference(*gradients)

losses = {}
for name, model in (("hand", by_hand), ("peft", by_peft)):
    optimizer = torch.optim.SGD(trained(model), lr=0.1)
    losses[name] = []
    for batch in batches:
        optimizer.zero_grad()
        loss = calc_loss_batch(batch, model)
        loss.backward()
        optimizer.step()
        losses[name].append(loss.detach())
differences["losses of ten steps"] = largest_difference(losses["hand"], losses["peft"])

merged = by_peft.merge_and_unload()
pairs = [(layer.merge().weight, merged.get_submodule(name).weight) for name, layer in lora_layers(by_hand)]
differences["merged weights"] = largest_difference(*zip(*pairs, strict=True))

chinese = {
    "logits": "logits",
    "gradients": "梯度",
    "losses of ten steps": "十步训练的损失",
    "merged weights": "合并后的权重",
}
for name, difference in differences.items():
    say(en=f"{name:20} largest difference {difference:.1e}", zh=f"{chinese[name]}：最大差别 {difference:.1e}")

first, last = losses["hand"][0].item(), losses["hand"][-1].item()
say(
    en=f"The loss itself: {first:.15f} at the first step, {last:.15f} at the tenth.",
    zh=f"损失本身：第一步 {first:.15f}，第十步 {last:.15f}。",
)

# %% [markdown] lang="en"
# Zero, or a few units in the sixteenth digit, although the training changed the loss: that is rounding, nothing else. Your
# LoRA and peft's are one and the same. lorafy's own tests hold its fast path against `lorafy.scratch` in the same way.

# %% [markdown] lang="zh"
# 训练改变了损失，而两边的差别是零，或者只在第十六位有效数字附近：纯属舍入，没有别的。你写的 LoRA 与 peft 的 LoRA 是同一个东西。lorafy 自己的测试也用同样的办法，把它的快速实现与 `lorafy.scratch` 逐一核对。

# %% [markdown] lang="en"
# ## 8.3 The same run through `lorafy train`
#
# A tool wants files. We write our three splits as CSV, so that nothing but the model and the tool is new. The recipe
# below is a Python dict; in a file `spam.yaml` it would have the same keys, and you would type `lorafy train spam.yaml`.
# Everything that the recipe leaves out has a default: LoRA on all linear layers, the batch, the schedule.

# %% [markdown] lang="zh"
# ## 8.3 用 `lorafy train` 再跑一遍
#
# 工具要的是文件。我们把三份数据写成 CSV，这样变的只有模型和工具。下面的"配方"（recipe）是一个 Python 字典；写成文件 `spam.yaml`，键名完全一样，在终端输入 `lorafy train spam.yaml` 即可。配方里没写的都有默认值：在所有线性层上加 LoRA、批大小、学习率计划等等。

# %%
import csv

for name, rows in splits.items():
    with Path(f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "text"])
        writer.writerows((LABELS[number], text) for text, number in rows)

recipe = {
    "model": {"path": "minilm"},
    "data": {name: f"{name}.csv" for name in splits},
    "adapter": {"r": 16, "alpha": 32},
    "train": {"num_epochs": 4, "learning_rate": 1e-3, "log_every": 4},
}

# %%
from rich.console import Console

began = time.perf_counter()
run = lorafy.train(recipe, console=Console(quiet=True))  # leave console out to see its progress
say(
    en=f"Trained, saved, loaded again, tested and verified in {time.perf_counter() - began:.0f} s: {run.path}",
    zh=f"训练、保存、重新加载、测试、验证，共用 {time.perf_counter() - began:.0f} 秒：{run.path}",
)

# %% [markdown] lang="en"
# `run.summary` says what was trained, `run.results` how good it is on the test messages, which took no part in the
# training. The interval says how far the accuracy may move with other test messages.

# %% [markdown] lang="zh"
# `run.summary` 说明训练了什么，`run.results` 给出它在测试短信上的成绩（测试短信没有参与训练）。区间的意思是：换一批测试短信，准确率大概会在这个范围内变动。

# %%
summary, results = run.summary, run.results
share = summary["trainable_parameters"] / summary["total_parameters"]
say(
    en=f"Trained: {summary['trainable_parameters']:,} of {summary['total_parameters']:,} parameters ({share:.1%}), "
    f"{summary['num_steps']} steps in {summary['seconds']:.0f} s.",
    zh=f"训练了 {summary['total_parameters']:,} 个参数中的 {summary['trainable_parameters']:,} 个（{share:.1%}），"
    f"{summary['num_steps']} 步，用时 {summary['seconds']:.0f} 秒。",
)
accuracy, (low, high) = results["metrics"]["accuracy"], results["metrics"]["accuracy_interval"]
say(
    en=f"Test accuracy {accuracy:.1%} on {results['num_examples']} messages (95 % interval {low:.1%} to {high:.1%}).",
    zh=f"在 {results['num_examples']} 条测试短信上，准确率 {accuracy:.1%}（95 % 置信区间 {low:.1%} 到 {high:.1%}）。",
)

# %% [markdown] lang="en"
# Is this much? The bundled messages were written so that single words do not give the answer away, so they are harder
# than most real ones. The results of 8.10 have the real SMS Spam Collection.
#
# Here is what happened on the way.

# %% [markdown] lang="zh"
# 这个成绩算高吗？自带的短信是特意写的：单看某个词猜不出答案，所以比大多数真实短信更难。真实的 SMS Spam Collection 的结果见 8.10。
#
# 下面是训练的过程。

# %%
train_points = [line for line in run.metrics if line["split"] == "train"]
validation_points = [line for line in run.metrics if line["split"] == "validation"]

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.3))
for axes, key in ((left, "loss"), (right, "accuracy")):
    axes.plot(
        [p["step"] for p in train_points],
        [p[key] for p in train_points],
        color=BLUE,
        label=label(en="training", zh="训练"),
    )
    axes.plot(
        [p["step"] for p in validation_points],
        [p[key] for p in validation_points],
        color=VERMILLION,
        marker="o",
        label=label(en="validation", zh="验证"),
    )
    axes.set_xlabel(label(en="step", zh="步数"))
left.set_ylabel(label(en="loss (nats)", zh="损失（nat）"))
left.set_ylim(bottom=0)
right.set_ylabel(label(en="accuracy", zh="准确率"))
left.legend()
plt.show()

# %% [markdown] lang="en"
# ## 8.4 The proof that the file is the model
#
# Many tools stop when the loss is low. But is the saved file complete? Does it give the same answers after loading? After
# merging $\frac{\alpha}{r}BA$ into $W$? lorafy asks these questions after every training, in a fresh process that knows
# nothing but the files.

# %% [markdown] lang="zh"
# ## 8.4 证明：存下的文件就是训练出的模型
#
# 很多工具看到损失降下去就收工了。可是，保存的文件完整吗？重新加载之后，回答还一样吗？把 $\frac{\alpha}{r}BA$ 合并进 $W$ 之后呢？每次训练结束，lorafy 都会启动一个全新的进程，除了文件什么都不知道，来回答这些问题。

# %%
meaning = {
    "file_unchanged": ("the file is the one that training wrote", "文件就是训练时写下的那个"),
    "same_base": ("it lies on the same base model", "底下是同一个基座模型"),
    "reloaded_equals_memory": ("loaded again, it answers as in training", "重新加载后，回答与训练时相同"),
    "differs_from_base": ("it differs from the base: something was learnt", "与基座不同：确实学到了东西"),
    "merged_equals_adapter": ("merged, it answers the same", "合并后，回答不变"),
}
for check in results["verification"]["checks"]:
    mark = "✓" if check["passed"] else "✗"
    english, translated = meaning.get(check["name"], (check["name"], check["name"]))
    say(en=f"{mark} {english}", zh=f"{mark} {translated}")

# %% [markdown] lang="en"
# The run is a folder. `adapter/` is what you give to others: a peft adapter with tokenizer and label names.
# `report.html` shows all of the above and the worst mistakes; open it in a browser.

# %% [markdown] lang="zh"
# 一次训练就是一个文件夹。其中 `adapter/` 是可以交给别人的成果：peft 格式的适配器，附带分词器和标签名。`report.html` 汇总了上面的一切，还列出错得最离谱的例子，请用浏览器打开看看。

# %%
for item in sorted(run.path.rglob("*")):
    if item.is_file() and len(item.relative_to(run.path).parts) < 3:
        print(f"{item.stat().st_size / 1024:9.1f} KiB  {item.relative_to(run.path).as_posix()}")

# %% [markdown] lang="en"
# ## 8.5 Use it
#
# `lorafy.load` merges the adapter once; from then on it costs nothing extra. In a terminal: `lorafy predict RUN "a text"`.

# %% [markdown] lang="zh"
# ## 8.5 用起来
#
# `lorafy.load` 会把适配器合并一次，之后就没有额外开销了。在终端里可以输入：`lorafy predict RUN "一条短信"`。

# %%
classifier = lorafy.load(run.path)
for prediction in classifier.classify(["Hey, want to grab lunch together?", "URGENT! You've won $5000! Click now!"]):
    print(f"{prediction.label:5} {prediction.probabilities[prediction.label]:6.1%}  {prediction.text}")

# %% [markdown] lang="en"
# ## 8.6 What the rank does
#
# Now the knobs. To see what a knob does, we want a task whose answer we *know*. So we make one: a linear layer $W_0$
# ("pretrained", frozen) of size $64 \times 64$, and a secret change $\Delta$ that the new task asks for. Most of $\Delta$ has rank
# 4, and a little noise is added. LoRA sees only inputs $x$ and targets $y = (W_0 + \Delta)\,x$.
#
# The best that any matrix of rank $r$ can do is known too (Eckart and Young, 1936): keep the $r$ largest singular values $\sigma_i$ of
# $\Delta$. What remains is
#
# $$\text{error}(r) \approx \frac{1}{64} \sum_{i > r} \sigma_i^2$$

# %% [markdown] lang="zh"
# ## 8.6 秩的作用
#
# 现在来拧旋钮。要看清一个旋钮的作用，最好有一个答案*已知*的任务。那就自己造一个：一个 $64 \times 64$ 的线性层 $W_0$（"预训练"好的，已冻结），以及新任务要求的秘密改变 $\Delta$。$\Delta$ 的主要部分秩为 4，再加一点噪声。LoRA 只能看到输入 $x$ 和目标 $y = (W_0 + \Delta)\,x$。
#
# 秩为 $r$ 的矩阵最好能做到什么程度，也是已知的（Eckart 与 Young，1936）：保留 $\Delta$ 最大的 $r$ 个奇异值 $\sigma_i$，剩下的误差是
#
# $$\text{error}(r) \approx \frac{1}{64} \sum_{i > r} \sigma_i^2$$

# %%
torch.manual_seed(0)
size = 64
W0 = torch.randn(size, size) / 8
delta = torch.randn(size, 4) @ torch.randn(4, size) / 64 + 0.01 * torch.randn(size, size)
x = torch.randn(512, size)
y = x @ (W0 + delta).T
error_of_base = (x @ W0.T - y).square().mean().item()


def frozen_layer():
    linear = nn.Linear(size, size, bias=False)
    linear.weight.data.copy_(W0)
    return linear.requires_grad_(False)


def fit(layer, learning_rate, steps):
    """Trains what is not frozen on the secret task; the mean squared error before each step and at the end."""
    optimizer = torch.optim.Adam([p for p in layer.parameters() if p.requires_grad], lr=learning_rate)
    errors = []
    for _ in range(steps):
        error = (layer(x) - y).square().mean()
        errors.append(error.item())
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    return [*errors, (layer(x) - y).square().mean().item()]


ranks = [1, 2, 3, 4, 6, 8, 16, 32]
reached = [fit(LinearWithLoRA(frozen_layer(), rank, alpha=32), 5e-3, 300)[-1] for rank in ranks]
sigma = torch.linalg.svdvals(delta)
possible = [sigma[rank:].square().sum().item() / size for rank in ranks]

figure, axes = plt.subplots(figsize=(7, 3.4))
axes.axhline(error_of_base, color=MUTED, linestyle="--", label=label(en="without LoRA", zh="不加 LoRA"))
axes.plot(
    ranks, possible, color=VERMILLION, linewidth=5, alpha=0.35, label=label(en="the best possible", zh="理论上最好")
)
axes.plot(ranks, reached, color=BLUE, marker="o", label=label(en="LoRA, trained", zh="训练出的 LoRA"))
axes.set_xscale("log", base=2)
axes.set_xticks(ranks, [str(rank) for rank in ranks])
axes.set_ylim(bottom=0)
axes.set_xlabel(label(en="rank $r$", zh="秩 $r$"))
axes.set_ylabel(label(en="mean squared error", zh="均方误差"))
axes.legend()
plt.show()

# %% [markdown] lang="en"
# LoRA finds the best matrix of its rank. Up to the rank that the task needs, each step of $r$ helps a lot. Beyond it, only the noise is
# left to learn. So: too small a rank costs quality, too large a rank costs only parameters. The LoRA paper (Hu et al. 2021, section 7.2) found
# very small ranks enough for its tasks; the question is how much *new* information your data holds.

# %% [markdown] lang="zh"
# LoRA 找到了该秩下最好的矩阵。在达到任务所需的秩之前，$r$ 每大一点都很有用；超过之后，剩下可学的只有噪声。所以：秩太小会损失质量，秩太大只是多费参数。LoRA 论文（Hu 等，2021，第 7.2 节）发现，很小的秩就足以完成他们的任务；关键在于你的数据里有多少*新*信息。

# %% [markdown] lang="en"
# ## 8.7 Alpha and the learning rate
#
# Alpha multiplies the change: $\frac{\alpha}{r} B A$. The learning rate says how far $A$ and $B$ move in a step. Both make the change grow
# faster, so they must be looked at together. Each field below is one training of 60 steps with $r = 8$; it shows how much of the
# base's error is left.

# %% [markdown] lang="zh"
# ## 8.7 alpha 与学习率
#
# alpha 放大改变量：$\frac{\alpha}{r} B A$；学习率决定 $A$、$B$ 每一步走多远。两者都会让改变增长得更快，所以要放在一起看。下图每一格都是一次 60 步的训练（$r = 8$），数字表示基座的误差还剩多少。

# %%
alphas = [1, 4, 16, 64, 256]
rates = [1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0]
left_over = torch.tensor(
    [
        [fit(LinearWithLoRA(frozen_layer(), 8, alpha), rate, 60)[-1] / error_of_base for rate in rates]
        for alpha in alphas
    ]
)

figure, axes = plt.subplots(figsize=(7.5, 3.6))
image = axes.imshow(left_over.clamp(max=1), cmap="viridis_r", vmin=0, vmax=1, aspect="auto")
for row in range(len(alphas)):
    for column in range(len(rates)):
        value = left_over[row, column].item()
        written = f"{value:.0%}" if value < 10 else "✗"
        axes.text(column, row, written, ha="center", va="center", color="white" if value > 0.45 else "black")
axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
axes.set_yticks(range(len(alphas)), [str(alpha) for alpha in alphas])
axes.grid(visible=False)
axes.set_xlabel(label(en="learning rate", zh="学习率"))
axes.set_ylabel("alpha")
figure.colorbar(image, label=label(en="error left (share of the base's)", zh="剩余误差（占基座误差的比例）"))
plt.show()

# %% [markdown] lang="en"
# Read the figure by rows. On the left the learning rate is too small: 60 steps are over before much has happened. On the right it is
# too large: the error stays, or grows (✗: more than ten times the base's). The good fields move to the *left* as alpha grows: a larger alpha
# wants a smaller learning rate. So do not tune both. Fix alpha (here 32, as "LoRA Without Regret" does; Schulman et al. 2025) and search the
# learning rate.
#
# What if you change the rank? And what if you train the whole $W_0$ instead? Twenty steps each:

# %% [markdown] lang="zh"
# 一行一行地看。左边学习率太小：60 步走完，几乎还没动。右边太大：误差降不下去，甚至变大（✗ 表示超过基座误差的十倍）。alpha 越大，好的格子就越往*左*移：alpha 大，学习率就该小。所以不要两个一起调。固定 alpha（本课程取 32，与 "LoRA Without Regret" 相同；Schulman 等，2025），只搜索学习率。
#
# 如果改变秩呢？如果不用 LoRA，而是训练整个 $W_0$ 呢？各训练 20 步：

# %%
rates = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
figure, axes = plt.subplots(figsize=(7, 3.4))
for rank, color in ((4, BLUE), (8, VERMILLION), (16, GREEN), (32, PURPLE)):
    left_over = [fit(LinearWithLoRA(frozen_layer(), rank, alpha=32), rate, 20)[-1] / error_of_base for rate in rates]
    axes.plot(rates, left_over, color=color, marker="o", label=f"LoRA, $r$ = {rank}")
left_over = [fit(frozen_layer().requires_grad_(True), rate, 20)[-1] / error_of_base for rate in rates]
axes.plot(rates, left_over, color=MUTED, linestyle="--", marker="s", label=label(en="all of $W_0$", zh="整个 $W_0$"))
axes.set_xscale("log")
axes.set_ylim(0, 1.5)
axes.set_xlabel(label(en="learning rate", zh="学习率"))
axes.set_ylabel(label(en="error left after 20 steps", zh="20 步后剩余的误差"))
axes.legend()
plt.show()

# %% [markdown] lang="en"
# LoRA's valleys lie at nearly the same place, whatever the rank: that is what the scale $\frac{\alpha}{r}$ is good for, and why lorafy, like the paper and
# peft, takes it. The valley of full training (dashed) lies further left: **LoRA wants a larger learning rate.** To keep the rate of full fine-tuning is the most common
# mistake with LoRA. "LoRA Without Regret" finds, over many models, that LoRA wants about ten times as much; lorafy's defaults have that ratio.
#
# ## 8.8 Start values
#
# $A$ starts small and random, $B$ starts as zeros. Why not otherwise? Four ways to start, the same task:

# %% [markdown] lang="zh"
# 无论秩是多少，LoRA 各条曲线的谷底几乎在同一处：这就是缩放 $\frac{\alpha}{r}$ 的好处，所以 lorafy 和论文、peft 一样用它。训练整个矩阵（虚线）的谷底更靠左：**LoRA 需要更大的学习率。** 用 LoRA 最常见的错误，就是照搬全量微调的学习率。"LoRA Without Regret" 在许多模型上发现，LoRA 的学习率大约要大十倍；lorafy 的默认值就是这个比例。
#
# ## 8.8 初始值
#
# $A$ 从小的随机数开始，$B$ 从零开始。换一种行不行？同一个任务，四种开头：


# %%
def start_with(random_A, random_B):
    layer = LinearWithLoRA(frozen_layer(), rank=8, alpha=16)
    for matrix, random in ((layer.lora.lora_A, random_A), (layer.lora.lora_B, random_B)):
        nn.init.uniform_(matrix, -0.125, 0.125) if random else nn.init.zeros_(matrix)
    return fit(layer, 5e-3, 100)


figure, axes = plt.subplots(figsize=(7, 3.4))
for name, random_A, random_B, color, style in (
    (label(en="A random, B zero (LoRA)", zh="A 随机，B 为零（LoRA）"), True, False, BLUE, "-"),
    (label(en="A zero, B random", zh="A 为零，B 随机"), False, True, GREEN, "--"),
    (label(en="both random", zh="两个都随机"), True, True, VERMILLION, "-"),
    (label(en="both zero", zh="两个都为零"), False, False, MUTED, "-"),
):
    axes.plot(start_with(random_A, random_B), color=color, linestyle=style, label=name)
axes.axhline(error_of_base, color=MUTED, linestyle=":", linewidth=1)
axes.set_ylim(bottom=0)
axes.set_xlabel(label(en="step", zh="步数"))
axes.set_ylabel(label(en="mean squared error", zh="均方误差"))
axes.legend()
plt.show()

# %% [markdown] lang="en"
# - **Both zero** never learns. The gradient of $A$ holds the factor $B$, that of $B$ the factor $A$: zero and zero.
# - **Both random** begins *above* the dotted line: the first thing it does is to damage the pretrained layer.
# - **One of them zero**: begins exactly at the base, and learns. Both ways round work; LoRA and peft set $B$ to zero.

# %% [markdown] lang="zh"
# - **两个都为零**：永远学不动。$A$ 的梯度里有因子 $B$，$B$ 的梯度里有因子 $A$，零对零。
# - **两个都随机**：起点*高于*虚线，第一件事就是把预训练好的层弄坏。
# - **其中一个为零**：起点正好是基座，而且能学。哪个为零都行；LoRA 论文和 peft 让 $B$ 为零。

# %% [markdown] lang="en"
# ## 8.9 Which layers
#
# A single layer cannot answer which *layers* should get LoRA. So we return to the small GPT of chapter 4, made even smaller,
# pretrain it for a few seconds on the training messages, and fine-tune copies of it.

# %% [markdown] lang="zh"
# ## 8.9 加在哪些层
#
# 只有一层，就没法回答 LoRA 该加在哪些*层*上。我们回到第 4 章的小 GPT，把它做得更小，在训练短信上预训练几秒钟，然后微调它的副本。

# %%
history = pretrain(base, make_loader(train_set, 32, shuffle=True), epochs=6, learning_rate=5e-3)
say(
    en=f"{len(history.losses)} steps: loss of the next token {history.losses[0]:.2f} -> {history.losses[-1]:.2f}.",
    zh=f"{len(history.losses)} 步：预测下一个 token 的损失 {history.losses[0]:.2f} -> {history.losses[-1]:.2f}。",
)


def tune(rank, skip, seed):
    """A copy of the base, tuned for 4 epochs: its training loss, its accuracy elsewhere, and how many parameters were trained."""
    model = copy.deepcopy(base)
    replace_linear_with_lora(model, rank, alpha=32, skip=["head", *skip], seed=seed)
    freeze_all_but_lora(model, also=["head"])
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=5e-3)
    loader = make_loader(train_set, 32, shuffle=True, seed=seed)
    for _ in range(4):
        for batch in loader:
            optimizer.zero_grad()
            calc_loss_batch(batch, model).backward()
            optimizer.step()
    looked_at = make_loader(train_set, 128), make_loader(held_out_set, 128)
    return calc_loss_loader(looked_at[0], model), calc_accuracy(looked_at[1], model), count_parameters(model)[0]


# %% [markdown] lang="en"
# Four choices. The ranks are chosen so that all have about as many LoRA parameters: else we would compare sizes, not places.

# %% [markdown] lang="zh"
# 四种选择。为了让 LoRA 参数数量大致相同，各自取了不同的秩；否则比的就是大小，而不是位置。

# %%
choices = [
    (label(en="all linear layers", zh="所有线性层"), 4, []),
    (label(en="attention", zh="注意力"), 6, ["feed_forward"]),
    (label(en="query and value", zh="query 和 value"), 12, ["feed_forward", "key", "output"]),
    (label(en="feed-forward", zh="前馈层"), 8, ["attention"]),
]
found = [[tune(rank, skip, seed) for seed in range(2)] for _, rank, skip in choices]

figure, axes = plt.subplots(figsize=(7.5, 2.8))
for row, runs in enumerate(found):
    axes.barh(row, statistics.mean(run[0] for run in runs), color=BLUE, height=0.55)
    axes.plot([run[0] for run in runs], [row] * len(runs), "o", color=VERMILLION, markersize=5)
axes.set_yticks(range(len(choices)), [f"{name}, $r$ = {rank}" for name, rank, _ in choices])
axes.invert_yaxis()
axes.grid(visible=False, axis="y")
axes.set_xlabel(label(en="training loss (bar: mean; points: two seeds)", zh="训练损失（条：平均；点：两个种子）"))
plt.show()

for (name, _, _), runs in zip(choices, found, strict=True):
    accuracy = statistics.mean(run[1] for run in runs)
    say(
        en=f"{name}: {runs[0][2]:,} parameters trained, held-out accuracy {accuracy:.1%}",
        zh=f"{name}：训练 {runs[0][2]:,} 个参数，留出数据上的准确率 {accuracy:.1%}",
    )

# %% [markdown] lang="en"
# With the same number of parameters, the *place* matters. And it matters differently in different models: in this tiny GPT, with a few seconds of
# pretraining, attention has to learn what to look at; in large pretrained models LoRA on attention alone falls behind, whatever its rank, and
# the feed-forward layers carry most of the gain ("LoRA Without Regret"; QLoRA, Dettmers et al. 2023, found that LoRA on all linear layers is needed to match full fine-tuning). You do not know
# beforehand which kind your model is. So take **all linear layers**: it is never the worst choice.
#
# ## 8.10 Full fine-tuning and LoRA: what each costs
#
# For every trained number the computer keeps the number, its gradient, and Adam's two moments: 16 bytes in float32. We count them,
# measure a step, and weigh the file. The model is the full-size small GPT of chapter 4.

# %% [markdown] lang="zh"
# 参数一样多，*位置*不同，结果就不同。而且不同模型的结论也不一样：这个很小的 GPT 只预训练了几秒钟，注意力还要学会看哪里；而在大型预训练模型上，只在注意力上加 LoRA，无论秩多大都会落后，前馈层才是收益的大头（"LoRA Without Regret"；QLoRA，Dettmers 等，2023，发现要在所有线性层上加 LoRA 才能追平全量微调）。你事先不知道自己的模型属于哪一种。所以就用**所有线性层**：它从来不是最差的选择。
#
# ## 8.10 全量微调与 LoRA：各花多少
#
# 每训练一个数，计算机都要保存这个数、它的梯度，以及 Adam 的两个动量：在 float32 下共 16 字节。我们来数一数参数，量一量每步的时间，称一称文件的大小。模型是第 4 章原尺寸的小 GPT。

# %%
from safetensors.torch import save_file


def cost(rank):
    model = SimpleGPTForClassification(tokenizer.vocab_size, 32)
    if rank is not None:
        replace_linear_with_lora(model, rank, skip=["head"])
        freeze_all_but_lora(model, also=["head"])
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters)
    seconds = []
    for batch in list(make_loader(train_set, 16))[:6]:
        began = time.perf_counter()
        optimizer.zero_grad()
        calc_loss_batch(batch, model).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    state = [p for p in parameters] + [p.grad for p in parameters]
    state += [moment for p in parameters for key, moment in optimizer.state[p].items() if key != "step"]
    megabytes = sum(tensor.numel() * tensor.element_size() for tensor in state) / 2**20
    kept = model.state_dict() if rank is None else lora_state_dict(model, also=["head"])
    save_file(kept, "weights.safetensors")
    trained_share = count_parameters(model)[0], count_parameters(model)[1]
    return (
        *trained_share,
        megabytes,
        1000 * statistics.median(seconds),
        Path("weights.safetensors").stat().st_size / 2**20,
    )


say(
    en="                     trained    share   state MiB   ms a step   file MiB",
    zh="            训练参数       占比    状态 MiB    每步毫秒   文件 MiB",
)
for rank in (None, 64, 32, 16):
    number, total, megabytes, milliseconds, size_on_disk = cost(rank)
    numbers = f"{number:11,} {number / total:8.1%} {megabytes:11.1f} {milliseconds:11.0f} {size_on_disk:10.2f}"
    say(
        en=f"{'full fine-tuning' if rank is None else f'LoRA, r = {rank}':17} {numbers}",
        zh=f"{'全量微调  ' if rank is None else f'LoRA r={rank}'} {numbers}",
    )

# %% [markdown] lang="en"
# Parameters, state and file shrink with the rank. The time of a step hardly does: forward and backward still pass through the whole model; only the gradients
# of the frozen weights are saved. And in so small a model the extra products of LoRA cost a part of that again.
#
# And the accuracy? That needs real data and many minutes, so it was done once and the results are in the repository: `bench/course.py`, described in
# `docs/course-results.md`. The cell reads the file.

# %% [markdown] lang="zh"
# 参数、状态和文件都随着秩变小。每步的时间却几乎没变：前向和反向仍要走完整个模型，省下的只是冻结权重的梯度；而在这么小的模型里，LoRA 多出来的乘法又吃掉了其中一部分。
#
# 那准确率呢？这需要真实数据和不少时间，所以事先跑好了，结果就在仓库里：脚本是 `bench/course.py`，说明见 `docs/course-results.md`。下面的单元格读取结果文件。

# %%
import course

names = {
    "words": label(en="counts of words, no LoRA", zh="词频统计，没有 LoRA"),
    "random": label(en="LoRA, small GPT, random", zh="LoRA，随机小 GPT"),
    "pretrained": label(en="LoRA, small GPT, pretrained", zh="LoRA，预训练小 GPT"),
    "minilm": label(en="LoRA r 16, MiniLM", zh="LoRA r 16，MiniLM"),
    "minilm_r32": label(en="LoRA r 32, MiniLM", zh="LoRA r 32，MiniLM"),
    "minilm_r64": label(en="LoRA r 64, MiniLM", zh="LoRA r 64，MiniLM"),
    "minilm_full": label(en="full fine-tuning, MiniLM", zh="全量微调，MiniLM"),
}
measured = {}
for file in sorted((Path(course.__file__).parents[1] / "bench" / "results").glob("course_*.jsonl")):
    for text in file.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        measured.setdefault((line["data"], line["setting"]), {})[line["seed"]] = (
            line  # a repeated run replaces its line
        )

figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), sharex=True, sharey=True)
for axes, (data, title) in zip(panels, (("sms", "SMS Spam Collection"), ("sst2", "SST-2")), strict=True):
    for row, setting in enumerate(names):
        for place, line in enumerate(measured.get((data, setting), {}).values()):
            low, high = line["accuracy_interval"]
            height = row + 0.2 * (place - 1)
            axes.plot([low, high], [height, height], color=BLUE, linewidth=1.5)
            axes.plot([line["accuracy"]], [height], "o", color=BLUE, markersize=4)
    axes.axvline(0.95, color=VERMILLION, linestyle="--", linewidth=1)
    axes.set_title(title, loc="left")
    axes.set_xlabel(label(en="test accuracy, 95 % interval", zh="测试准确率与 95 % 区间"))
panels[0].set_yticks(range(len(names)), list(names.values()))
panels[0].invert_yaxis()
plt.show()

# %%
say(
    en="MiniLM on real SMS       trained   memory GiB   CPU sec.  disk MiB   accuracy",
    zh="MiniLM，真实短信         训练参数    内存 GiB   CPU 秒数   磁盘 MiB     准确率",
)
for setting in ("minilm_full", "minilm_r64", "minilm_r32", "minilm"):
    runs = list(measured.get(("sms", setting), {}).values())
    if runs:
        memory = statistics.mean(run["peak_memory_bytes"] for run in runs) / 2**30
        seconds = statistics.mean(run["cpu_seconds"] for run in runs)
        accuracy = statistics.mean(run["accuracy"] for run in runs)
        numbers = f"{runs[0]['trainable_parameters']:11,} {memory:12.2f} {seconds:9.0f} {runs[0]['bytes_on_disk'] / 2**20:10.1f} {accuracy:10.1%}"
        say(en=f"{setting:20} {numbers}", zh=f"{setting:20} {numbers}")

# %% [markdown] lang="en"
# In the figure, every line is one training with its own seed and split; the dashed line is the 95 % that courses like to promise. Three things to see:
#
# 1. On the SMS messages even *counting words* comes to about the dashed line. Words like "free" and "claim" nearly decide. So 95 % there says little about a model, and a random base can come near it too.
# 2. On SST-2, short sentences about films, counting words is far from it: "not bad" has two bad words and is praise. Here it shows what a base knows.
# 3. A base pretrained on the few training texts alone is a small help at best. Real pretraining, as MiniLM had, is what lifts LoRA. LoRA *adjusts* knowledge, it does not replace it.

# %% [markdown] lang="zh"
# 图中每条横线是一次训练，各有自己的种子和划分；虚线是许多课程爱承诺的 95 %。有三点值得看：
#
# 1. 在短信数据上，连*数词频*都能到虚线附近："free"、"claim" 这样的词几乎就能定案。所以在这里达到 95 %，说明不了模型有多好，随机的基座也能接近。
# 2. SST-2 是关于电影的短句，数词频就差得远了："not bad" 含两个坏词，却是夸奖。在这里才看得出基座懂多少。
# 3. 只在那点训练文本上预训练的基座，最多帮一点小忙。真正的预训练（像 MiniLM 那样）才能让 LoRA 发挥作用。LoRA *调整*知识，不能代替知识。

# %% [markdown] lang="en"
# ## 8.11 What to choose
#
# | setting | begin with | change it when |
# |---|---|---|
# | rank r | 16 | training loss stays high although the learning rate is right: double it. The file must be tiny: halve it |
# | alpha | 32, and leave it | never together with the learning rate |
# | learning rate | 5e-4, ten times that of full fine-tuning | loss hardly moves: three times as much. Loss jumps: a third |
# | layers | all linear layers | hardly ever |
# | start values | A random, B zero | no need |
# | epochs | 3; more for a few hundred rows | validation loss still falls: more. It rises: fewer, or keep the best checkpoint |
#
# Why lorafy's defaults are what they are, with measurements: `docs/defaults.md`.
#
# ## Exercise
#
# Many recipes say "always set alpha to twice the rank". What does that do to the scale $\frac{\alpha}{r}$ when you change the rank, and
# what does a fixed alpha do? Say it first, then run the cell: how much of the base's error is gone after ten small steps?

# %% [markdown] lang="zh"
# ## 8.11 怎么选
#
# | 设置 | 先用 | 什么时候改 |
# |---|---|---|
# | 秩 r | 16 | 学习率合适而训练损失仍然偏高：加倍；文件必须很小：减半 |
# | alpha | 32，不再动 | 不要和学习率一起调 |
# | 学习率 | 5e-4，即全量微调的十倍 | 损失几乎不动：乘以三；损失乱跳：除以三 |
# | 层 | 所有线性层 | 几乎不用改 |
# | 初始值 | A 随机，B 为零 | 不用改 |
# | 轮数 | 3；只有几百条数据时多几轮 | 验证损失还在降：多训练；开始上升：少训练，或保留最好的检查点 |
#
# lorafy 的默认值为何如此、有哪些测量：见 `docs/defaults.md`。
#
# ## 练习
#
# 很多教程说"alpha 总是取秩的两倍"。改变秩的时候，这样做会让缩放 $\frac{\alpha}{r}$ 怎样变？固定 alpha 又会怎样？先说出你的答案，再运行单元格：走十小步之后，基座的误差消去了多少？

# %%
for rank in (4, 8, 16, 32, 64):
    gone = {}
    for alpha in (32, 2 * rank):
        layer = LinearWithLoRA(frozen_layer(), rank, alpha)
        gone[alpha] = 1 - fit(layer, 2e-4, 10)[-1] / error_of_base
    fixed, double = gone[32], gone[2 * rank]
    say(
        en=f"r = {rank:2}:  alpha = 32, scale {32 / rank:3.1f}: {fixed:5.1%} gone   alpha = 2r, scale 2.0: {double:5.1%} gone",
        zh=f"r = {rank:2}：alpha = 32，缩放 {32 / rank:3.1f}：消去 {fixed:5.1%}    alpha = 2r，缩放 2.0：消去 {double:5.1%}",
    )

# %% [markdown] lang="en"
# With a fixed alpha every rank goes about equally far: $r$ pairs of a row of $A$ and a column of $B$ pull in the same direction, and $\frac{\alpha}{r}$ takes their
# mean. With alpha = 2r the scale stays the same, and a larger rank goes further in the same number of steps, as if you had raised the learning rate. Then it has
# to be searched again for every rank. Neither is a law; but know which one you use before you compare ranks.

# %% [markdown] lang="zh"
# 固定 alpha 时，各个秩走得差不多远：$A$ 的一行和 $B$ 的一列组成一对，$r$ 对都朝同一方向拉，$\frac{\alpha}{r}$ 相当于取平均。alpha = 2r 时缩放不变，秩越大，同样步数就走得越远，好像学习率被调大了；于是每换一个秩都得重新找学习率。两种都不是定律；但在比较不同的秩之前，要清楚自己用的是哪一种。
