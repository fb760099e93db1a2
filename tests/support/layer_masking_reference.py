"""Layer masking written out by position, in NumPy: the oracle of the tests.

Deliberately plain: loops over output positions, every rule spelled out, all the rings of neighbor
padding that the paper takes (as many as the kernel is wide, before every convolution, 1x1
included), no shortcut. One image at a time, `x` `[H, W, C]` with `mask` `[H, W]`. Reads a torch
state dict of a torchvision ResNet as NumPy arrays.
"""

import numpy as np


def neighbor_padding(x, mask, rings):
    height, width = mask.shape
    x, known = x.copy(), mask.astype(bool).copy()
    for _ in range(rings):
        if known.all() or not known.any():
            break  # further rings are empty
        next_x, next_known = x.copy(), known.copy()
        for i in range(height):
            for j in range(width):
                if known[i, j]:
                    continue
                near = (slice(max(i - 1, 0), i + 2), slice(max(j - 1, 0), j + 2))
                values = x[near][known[near]]
                if len(values):
                    next_x[i, j] = values.mean(axis=0)
                    next_known[i, j] = True
        x, known = next_x, next_known
    return x


def pair(value):
    """(rows, columns) of a number for both, or of a pair."""
    return value if isinstance(value, tuple) else (value, value)


def windows(size, kernel, stride, padding, dilation, ceil_mode):
    """For each output position along one axis, slices: (input positions, kernel taps) inside."""
    low, high = pair(padding)
    reach = dilation * (kernel - 1) + 1
    # In ceil mode a window may reach beyond the padding, if it begins before the right padding.
    end = size + high - reach + 1
    end = max(end, size) if ceil_mode else end
    for i, start in enumerate(range(-low, end, stride)):
        if i and start - stride + reach >= size + high:  # the last one has reached the end
            break
        taps = [t for t in range(kernel) if 0 <= start + dilation * t < size]
        first, last = (taps[0], taps[-1]) if taps else (0, -1)
        here = slice(start + dilation * first, start + dilation * last + 1, dilation)
        yield here if taps else slice(0), slice(first, last + 1)


def over_windows(shape, function, kernel, stride, padding, dilation=1, ceil_mode=False):
    """Calls `function(positions, taps)` for each output position; stacks what it returns."""
    options = zip(pair(kernel), pair(stride), pair(padding), pair(dilation))
    rows, columns = (
        list(windows(length, *each, ceil_mode)) for length, each in zip(shape, options)
    )
    return np.array(
        [
            [function((row, column), (row_taps, column_taps)) for column, column_taps in columns]
            for row, row_taps in rows
        ]
    )


def conv(x, mask, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1, fill="neighbor"):
    """`weight` `[C_out, C // groups, kh, kw]`, as torch keeps it."""
    kernel = weight.shape[2:]
    bias = np.zeros(len(weight)) if bias is None else bias
    x = np.where(mask[..., None], x, 0)
    if fill == "neighbor":
        x = neighbor_padding(x, mask, max(d * (k - 1) for d, k in zip(pair(dilation), kernel)) + 1)
    x = x.reshape(*mask.shape, groups, -1)
    weight = weight.reshape(groups, -1, *weight.shape[1:]).transpose(3, 4, 0, 2, 1)

    def at(here, taps):
        visible = mask[here].sum()
        if not visible:
            return np.zeros(len(bias))
        y = np.einsum("ijgc,ijgco->go", x[here], weight[taps]).reshape(-1)
        return y * (np.prod(kernel) / visible if fill == "partial" else 1) + bias

    options = (kernel, stride, padding, dilation)
    y = over_windows(mask.shape, at, *options)
    return y, over_windows(mask.shape, lambda here, taps: mask[here].any(), *options)


def pool(x, mask, function, *, window, stride, padding=0, dilation=1, ceil_mode=False):
    """`function` of the visible values `[P, C]` of each window."""

    def at(here, taps):
        values = x[here][mask[here]]
        return function(values, axis=0) if len(values) else np.zeros(x.shape[-1])

    options = (window, stride, padding, dilation, ceil_mode)
    touched = over_windows(mask.shape, lambda here, taps: mask[here].any(), *options)
    return over_windows(mask.shape, at, *options), touched


def max_pool(x, mask, **options):
    return pool(x, mask, np.max, **options)


def average_pool(x, mask, **options):
    return pool(x, mask, np.mean, **options)


def window_sum(x, mask, *, window, stride, padding=0, dilation=1, ceil_mode=False):
    """The mean of the visible values times how many positions of the window are in the image."""
    options = (window, stride, padding, dilation, ceil_mode)
    inside = over_windows(mask.shape, lambda here, taps: mask[here].size, *options)
    y, mask = pool(
        x,
        mask,
        np.mean,
        window=window,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
    )
    return y * inside[..., None], mask


def adaptive_average_pool(x, mask, size):
    """`[size, size, C]`: cell i of n takes rows floor(i * H / n) to ceil((i + 1) * H / n)."""
    cells = np.zeros((size, size, x.shape[-1]))
    for i in range(size):
        for j in range(size):
            rows, columns = (
                slice(int(np.floor(k * n / size)), int(np.ceil((k + 1) * n / size)))
                for k, n in zip((i, j), mask.shape)
            )
            values = x[rows, columns][mask[rows, columns]]
            if len(values):
                cells[i, j] = values.mean(axis=0)
    return cells


def batch_norm(x, mask, state, name):
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    x = (x - mean) / np.sqrt(var + 1e-5) * state[f"{name}.weight"] + state[f"{name}.bias"]
    return np.where(mask[..., None], x, 0)


def relu(x):
    return np.maximum(x, 0)


def block(x, mask, state, name, *, stride, groups, fill):
    """A basic block or a bottleneck, as the state dict has it."""
    bottleneck = f"{name}.conv3.weight" in state
    layers = [("1", 1, 0, 1), ("2", stride, 1, groups), ("3", 1, 0, 1)]
    if not bottleneck:
        layers = [("1", stride, 1, 1), ("2", 1, 1, 1)]
    y, y_mask = x, mask
    for i, layer_stride, padding, layer_groups in layers:
        y, y_mask = conv(
            y,
            y_mask,
            state[f"{name}.conv{i}.weight"],
            stride=layer_stride,
            padding=padding,
            groups=layer_groups,
            fill=fill,
        )
        y = batch_norm(y, y_mask, state, f"{name}.bn{i}")
        if i != layers[-1][0]:
            y = relu(y)
    if f"{name}.downsample.0.weight" in state:
        x, mask = conv(x, mask, state[f"{name}.downsample.0.weight"], stride=stride, fill=fill)
        x = batch_norm(x, mask, state, f"{name}.downsample.1")
    mask = mask & y_mask
    return np.where(mask[..., None], relu(x + y), 0), mask


def resnet(state, image, mask, *, groups=1, fill="neighbor", depth=None):
    """Logits `[K]` of a normalised image `[H, W, C]` under a mask `[H, W]`."""
    mask = np.asarray(mask, bool)
    x = np.where(mask[..., None], image, 0).astype(np.float64)
    x, mask = conv(x, mask, state["conv1.weight"], stride=2, padding=3, fill=fill)
    x = relu(batch_norm(x, mask, state, "bn1"))
    x, mask = max_pool(x, mask, window=3, stride=2, padding=1)
    done = 0
    for stage in range(1, 5):
        i = 0
        while f"layer{stage}.{i}.conv1.weight" in state:
            if done == depth:
                mask = np.ones_like(mask)
            stride = 2 if stage > 1 and i == 0 else 1
            options = {"stride": stride, "groups": groups, "fill": fill}
            x, mask = block(x, mask, state, f"layer{stage}.{i}", **options)
            i, done = i + 1, done + 1
    if done == depth:
        mask = np.ones_like(mask)
    features = x[mask].mean(axis=0) if mask.any() else np.zeros(x.shape[-1])
    return state["fc.weight"] @ features + state["fc.bias"]
