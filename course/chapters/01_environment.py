# %% [markdown] lang="en"
# # 1 · Before you begin
#
# In this course you write LoRA yourself, in about thirty lines, and use it to teach a small language model to tell spam
# from ordinary messages. Then you repeat the same work with `lorafy`, the tool that this course belongs to, on a real
# pretrained model.
#
# You need a little Python: functions, lists, classes. You need no graphics card and, once `lorafy` is installed, no
# network.
#
# This first chapter makes sure that everything is in its place. Run each cell with Shift + Enter, from top to bottom.

# %% [markdown] lang="zh"
# # 1 · 开始之前
#
# 在这门课里，你会用大约三十行代码亲手写出 LoRA，并用它教会一个小语言模型分辨垃圾短信和普通短信。然后，你会用 `lorafy`（本课程所属的工具）在一个真正的预训练模型上把同样的事再做一遍。
#
# 你只需要会一点 Python：函数、列表、类。不需要显卡；装好 `lorafy` 之后，也不需要联网。
#
# 第一章先确认一切就绪。请从上到下，用 Shift + Enter 逐个运行单元格。

# %% [markdown] lang="en"
# ## 1.1 The first cell of every chapter
#
# It finds the folder of `lorafy`, so that Python can import the course's own files. It also makes two small functions:
# `say` prints a sentence, `label` writes on a figure, both in the language of your notebook.

# %% [markdown] lang="zh"
# ## 1.1 每一章的第一个单元格
#
# 它会找到 `lorafy` 所在的文件夹，好让 Python 能导入课程自带的文件。它还准备了两个小函数：`say` 打印一句话，`label` 给图写标签，用的都是你这份笔记本的语言。

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

say(en="Ready.", zh="准备好了。")

# %% [markdown] lang="en"
# If this cell says `No module named 'course'`, the notebook was started outside of lorafy's folder: start Jupyter inside
# it. If it says `No module named 'lorafy'` or `'matplotlib'`, Jupyter uses another Python than the one lorafy was
# installed into: choose the kernel of the `.venv` in lorafy's folder.

# %% [markdown] lang="zh"
# 如果这里报错 `No module named 'course'`，说明笔记本不是在 lorafy 的文件夹里启动的：请在该文件夹里启动 Jupyter。如果报错 `No module named 'lorafy'` 或 `'matplotlib'`，说明 Jupyter 用的不是安装了 lorafy 的那个 Python：请选择 lorafy 文件夹中 `.venv` 对应的内核。

# %% [markdown] lang="en"
# ## 1.2 Python and torch
#
# *torch* (PyTorch) does two things for us. It computes with **tensors**, which are tables of numbers with any number of
# dimensions. And it finds **gradients**: in which direction, and how strongly, each number of a model should change so
# that the model makes smaller mistakes.

# %% [markdown] lang="zh"
# ## 1.2 Python 与 torch
#
# *torch*（PyTorch）为我们做两件事。第一，用**张量**做计算；张量就是任意维数的数字表格。第二，求**梯度**：模型里的每个数应该朝哪个方向、以多大的力度改变，才能让模型少犯错。

# %%
import platform

import torch

say(
    en=f"Python {platform.python_version()} on {platform.system()}, torch {torch.__version__}.",
    zh=f"Python {platform.python_version()}，系统 {platform.system()}，torch {torch.__version__}。",
)

# %% [markdown] lang="en"
# A tensor has a **shape**. Reading shapes is half of understanding a model, so this course writes them down everywhere.
# Below, `x` holds 3 texts, each described by 4 numbers: shape (3, 4). `W` turns 4 numbers into 2.

# %% [markdown] lang="zh"
# 每个张量都有**形状**。会看形状，就读懂了模型的一半，所以本课程处处都写明形状。下面的 `x` 表示 3 条文本，每条用 4 个数描述：形状是 (3, 4)。`W` 把 4 个数变成 2 个数。

# %%
x = torch.randn(3, 4)
W = torch.randn(2, 4)  # torch stores a weight as (outputs, inputs)
y = x @ W.T

say(
    en=f"x {tuple(x.shape)} times W transposed {tuple(W.T.shape)} gives y {tuple(y.shape)}.",
    zh=f"x {tuple(x.shape)} 乘以 W 的转置 {tuple(W.T.shape)}，得到 y {tuple(y.shape)}。",
)

# %% [markdown] lang="en"
# And a gradient. For $f(w) = (w - 3)^2$ the derivative is $2(w - 3)$. torch finds the same number without being told
# the rule.

# %% [markdown] lang="zh"
# 再看梯度。函数 $f(w) = (w - 3)^2$ 的导数是 $2(w - 3)$。我们没有告诉 torch 这个公式，它自己就能算出同样的数。

# %%
w = torch.tensor(5.0, requires_grad=True)
f = (w - 3) ** 2
f.backward()

say(
    en=f"torch: {w.grad.item():g}. By hand: {2 * (w.item() - 3):g}.",
    zh=f"torch 算得 {w.grad.item():g}，手算得 {2 * (w.item() - 3):g}。",
)

# %% [markdown] lang="en"
# ## 1.3 Chance that repeats itself
#
# Training starts from random numbers. With a **seed** the same "random" numbers come again, so you and your neighbour
# see the same results, up to the last digits, which depend on the processor.

# %% [markdown] lang="zh"
# ## 1.3 可以重来的随机
#
# 训练从随机数开始。固定一个**随机种子**，同样的"随机"数就会再次出现，于是你和同桌能看到一样的结果（最后几位小数可能因处理器而异）。

# %%
torch.manual_seed(123)
first = torch.randn(4)
second = torch.randn(4)
torch.manual_seed(123)
again = torch.randn(4)

say(
    en=f"Same seed, same numbers: {torch.equal(first, again)}. Drawn on without a new seed: {torch.equal(first, second)}.",
    zh=f"种子相同，数字相同：{torch.equal(first, again)}。不重设种子继续抽取：{torch.equal(first, second)}。",
)

# %% [markdown] lang="en"
# ## 1.4 Processor or graphics card
#
# A model is mostly matrix products. A graphics card (GPU) does them many times faster than a processor (CPU). This
# course is small enough for a CPU, and its cells run there even if you have a GPU.

# %% [markdown] lang="zh"
# ## 1.4 用 CPU 还是 GPU
#
# 模型的计算大部分是矩阵乘法。显卡（GPU）做矩阵乘法比处理器（CPU）快很多倍。本课程足够小，用 CPU 就行；即使你有 GPU，课程的单元格也在 CPU 上运行。

# %%
if torch.cuda.is_available():
    say(en=f"A GPU: {torch.cuda.get_device_name(0)}.", zh=f"有 GPU：{torch.cuda.get_device_name(0)}。")
else:
    say(en="No GPU that torch can use.", zh="没有 torch 可用的 GPU。")
say(
    en=f"torch computes with {torch.get_num_threads()} thread(s) on the CPU.",
    zh=f"torch 在 CPU 上用 {torch.get_num_threads()} 个线程计算。",
)

# %% [markdown] lang="en"
# How fast is your CPU at this? The product of two $n \times n$ matrices takes about $2 n^3$ operations: for each of the
# $n^2$ results, $n$ multiplications and $n$ additions. We measure the time and divide. Small products do not reach the
# full speed: the work around them weighs more.

# %% [markdown] lang="zh"
# 你的 CPU 做这件事有多快？两个 $n \times n$ 矩阵相乘大约需要 $2 n^3$ 次运算：$n^2$ 个结果，每个要 $n$ 次乘法和 $n$ 次加法。我们量出时间，再相除。小矩阵达不到全速，因为乘法之外的准备工作占了更大比重。

# %%
import time

import matplotlib.pyplot as plt

from lorafy.report.style import BLUE

sizes = [16, 32, 64, 128, 256, 512, 1024]
speeds = []
for n in sizes:
    a, b = torch.randn(n, n), torch.randn(n, n)
    tries = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(max(1, 512 // n)):
            a @ b
        tries.append((time.perf_counter() - began) / max(1, 512 // n))
    speeds.append(2 * n**3 / min(tries) / 1e9)  # the fastest try was disturbed least

figure, axes = plt.subplots(figsize=(6.5, 3.2))
axes.plot(sizes, speeds, color=BLUE, marker="o")
axes.set_xscale("log", base=2)
axes.set_xticks(sizes, [str(n) for n in sizes])
axes.set_ylim(bottom=0)
axes.set_xlabel(label(en="size of the matrices, $n$", zh="矩阵的大小 $n$"))
axes.set_ylabel(label(en="billion operations per second", zh="每秒运算次数（十亿）"))
axes.set_title(label(en="How fast this CPU multiplies matrices", zh="这台 CPU 做矩阵乘法的速度"), loc="left")
plt.show()

say(
    en=f"At most {max(speeds):.0f} billion operations per second.",
    zh=f"最快每秒约 {max(speeds) * 10:.0f} 亿次运算。",
)

# %% [markdown] lang="en"
# ## 1.5 Where the files lie
#
# Four places matter: the course, the from-scratch code, the messages that come with lorafy, and the pretrained MiniLM
# encoder, which is installed as a Python package so that no download is needed later.

# %% [markdown] lang="zh"
# ## 1.5 文件都在哪里
#
# 有四个地方值得知道：课程本身、从零实现的代码、lorafy 自带的短信，以及预训练的 MiniLM 编码器。后者是作为 Python 包安装的，所以之后不必再下载。

# %%
import course
import lorafy
from lorafy.models.embedded import resolve

course_folder = Path(course.__file__).parent
package = Path(lorafy.__file__).parent
model_folder = Path(resolve("minilm"))
messages = package / "demo" / "sms.csv"

say(en=f"the course            {course_folder}", zh=f"课程          {course_folder}")
say(en=f"LoRA from scratch     {package / 'scratch'}", zh=f"从零写的LoRA  {package / 'scratch'}")
say(en=f"the bundled messages  {messages}", zh=f"自带的短信    {messages}")
say(en=f"the MiniLM encoder    {model_folder}", zh=f"MiniLM 编码器 {model_folder}")
say(en=f"you work in           {Path.cwd()}", zh=f"当前工作目录  {Path.cwd()}")

# %% [markdown] lang="en"
# The whole of the from-scratch code is short: so many lines in each file. Chapters 3 to 7 go through it.

# %% [markdown] lang="zh"
# 从零实现的全部代码并不长，每个文件的行数见下。第 3 章到第 7 章会带你逐一读过。

# %%
for file in sorted((package / "scratch").glob("*.py")):
    print(f"{len(file.read_text(encoding='utf-8').splitlines()):5} {file.name}")

# %% [markdown] lang="en"
# ## 1.6 A check of the machine
#
# `lorafy doctor` looks at everything that training needs. In a terminal you type just `lorafy doctor`; here Python starts
# the same program.

# %% [markdown] lang="zh"
# ## 1.6 给电脑做个体检
#
# `lorafy doctor` 会检查训练所需的一切。在终端里直接输入 `lorafy doctor` 即可；这里由 Python 来启动同一个程序。

# %%
import subprocess

finished = subprocess.run(
    [sys.executable, "-X", "utf8", "-m", "lorafy", "doctor"],
    capture_output=True,
    encoding="utf-8",
    errors="replace",
    check=False,
)
print(finished.stdout, finished.stderr)

# %% [markdown] lang="en"
# How to read it. Each row has a name, a verdict and what was found. Below the table stands what to do, ready to copy.
#
# | row | what it asks |
# |---|---|
# | python, packages, torch | are they there, do their versions fit together, does a small training step work? |
# | processor, threads | which fast instructions can be used, and are all cores at work? |
# | memory, disk | is there room for a model and its checkpoints? |
# | gpu | a card? with a driver that fits this torch? |
# | model cache, hub | where downloaded models lie, and can more be downloaded? Not needed in this course |
# | console | can your terminal show every character? |
# | minilm | is the pretrained encoder installed? Needed in chapters 2 and 8 |
#
# A *warning* is a remark, you can go on. An *error* has to be mended first.

# %% [markdown] lang="zh"
# 怎样读这张表：每一行有名称、结论和检查到的情况；表的下面写着该怎么办，可以直接复制。
#
# | 行 | 检查什么 |
# |---|---|
# | python, packages, torch | 是否都已安装？版本是否相配？一小步训练能否跑通？ |
# | processor, threads | 能用哪些快速指令？所有核心都用上了吗？ |
# | memory, disk | 放得下模型和检查点吗？ |
# | gpu | 有没有显卡？驱动与当前的 torch 是否匹配？ |
# | model cache, hub | 下载的模型放在哪里？还能再下载吗？本课程用不到 |
# | console | 终端能显示所有字符吗？ |
# | minilm | 预训练编码器装好了吗？第 2 章和第 8 章要用 |
#
# *warning* 是提醒，可以继续；*error* 必须先解决。

# %% [markdown] lang="en"
# ## Exercise
#
# MiniLM's weights lie in one file, in float32: four bytes for each number. How many numbers does the model have? Guess
# from the size of the file, then count exactly. (Why is the file a little larger than four bytes times the count?)

# %% [markdown] lang="zh"
# ## 练习
#
# MiniLM 的权重放在一个文件里，格式是 float32：每个数占四个字节。这个模型一共有多少个数？先根据文件大小估计，再精确地数一数。（为什么文件比"个数乘以四字节"略大一点？）

# %%
from safetensors import safe_open

weights = model_folder / "model.safetensors"
size = weights.stat().st_size
with safe_open(weights, framework="pt") as file:
    count = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118

say(
    en=f"The file has {size:,} bytes, so about {size / 4 / 1e6:.1f} million numbers. Counted: {count:,}.",
    zh=f"文件有 {size:,} 字节，估计约 {size / 4 / 1e4:.0f} 万个数。精确计数：{count:,}。",
)
say(
    en=f"The other {size - 4 * count:,} bytes are the header: each tensor's name, shape and place.",
    zh=f"多出来的 {size - 4 * count:,} 字节是文件头：每个张量的名称、形状和位置。",
)

# %% [markdown] lang="en"
# To fine-tune all of these numbers you must keep, for each of them, its gradient and two more numbers of the optimizer.
# The next chapter shows how LoRA gets by with far fewer.

# %% [markdown] lang="zh"
# 如果要微调所有这些数，就得为每一个数再保存它的梯度，以及优化器的另外两个数。下一章你会看到，LoRA 怎样用少得多的数完成同样的事。
