"""Every tolerance of the tests, with its reason. A test that needs another one needs another reason first."""

FLOAT64_ROUNDING = 1e-12
"""Largest relative difference of float64 sums in another order: 2**-52 a product, over some thousand of them."""

FLOAT32_ROUNDING = 1e-5
"""The same for float32 through a small model, forward and backward: 2**-23 a product, some dozen layers."""

FLOAT64_UPDATES = 1e-8
"""Weights after some steps of AdamW in float64, absolute, at learning rates of 1e-2: a key's bias has no gradient
(softmax does not see it), what is there is rounding (1e-18), and Adam enlarges it by at most 1 / eps = 1e8."""

FLOAT32_UPDATES = 1e-3
"""Two processes against one over ten steps of AdamW, relative to the distance that the weights moved.

Adam divides a gradient by its own size, so where it is near zero its rounding (1e-7 of the largest) is what is left.
"""

BFLOAT16_ROUNDING = 4 * 2**-8
"""Probabilities from logits computed in bfloat16 (8 bits): a unit in the last place at each of a few layers."""

BOOTSTRAP_SHARE = 0.02
"""A percentile of 1,000 bootstrap draws against one of a direct resampling with as many: the Monte Carlo error of the
2.5 % point, about three standard errors for F1 over some hundred examples."""

FOUR_DIGITS = 5e-5
"""Half a unit of the last of four printed digits."""

BFLOAT16_TIMES_TORCH = 2
"""House rule: a fast operation's error against float64 is at most twice that of plain torch in bfloat16."""

BFLOAT16_STORED = 2**-9
"""Error below which that rule asks nothing, relative to the tensor's length: rounding every value once to 8 bits costs
at most that. Of few values plain torch may by chance store every one exactly; and a residual stream in float32 gets its
gradient through normed rows that are kept in bfloat16."""

SCORE_ROUNDING = 2**-22
"""Gradients of an attention in float32, times the largest score: the backward pass takes the probabilities from the
row's log-sum-exp, which is rounded at its own size and subtracted once more."""
