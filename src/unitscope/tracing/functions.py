"""Functions: the names of torch functions, by what they do to numbers and to axes.

A name is the function's `__name__`, as a `TorchFunctionMode` sees it. Operators and
in-place functions have names of their own: `x + y` is `__add__`, `x += y` `__iadd__`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Metadata. ---------------------------------------------------------------------------

# Return a tensor's shape and the like, not its numbers.
METADATA_QUERIES = _names("""
    size dim ndimension numel nelement stride storage_offset element_size get_device
    is_contiguous is_floating_point is_complex is_same_size __len__ __hash__ __repr__
    """)

# Make a new tensor whose numbers do not come from their arguments.
CONSTRUCTORS = _names("""
    zeros_like ones_like empty_like full_like rand_like randn_like randint_like
    new_zeros new_ones new_empty new_full new_tensor
    """)


# Same numbers. -----------------------------------------------------------------------

# Change the data type, or the device.
CASTS = _names("to float double half bfloat16 type type_as")

# Change how or where numbers are stored, or how they are differentiated.
COPIES = _names("contiguous clone detach data cpu cuda _to_copy requires_grad_")

# Do nothing in evaluation mode.
DROPOUTS = _names("""
    dropout dropout_ dropout1d dropout2d dropout3d feature_dropout alpha_dropout
    feature_alpha_dropout native_dropout
    """)

# Merge, divide, add or remove axes, in row-major order.
RESHAPES = _names("""
    flatten unflatten view view_as reshape reshape_as squeeze unsqueeze
    """)

# Reorder axes.
AXIS_REORDERINGS = _names("""
    permute transpose swapaxes swapdims movedim moveaxis t T mT
    """)

# Take a part of one tensor.
SELECTIONS = _names("__getitem__ select narrow unbind")

# Divide one tensor along an axis.
DIVIDERS = _names("split split_with_sizes chunk tensor_split")

# Join tensors along an axis that they have; `stack` makes a new one.
CONCATENATIONS = _names("cat concat concatenate")

# Repeat numbers along an axis.
REPETITIONS = _names(
    "expand expand_as broadcast_to repeat tile repeat_interleave"
)

# Mirror axes.
FLIPS = _names("flip fliplr flipud")

# Reorder one axis, or choose from it.
CHOICES_ALONG_AXIS = _names("""
    index_select gather take_along_dim sort argsort msort topk cummax cummin
    """)

# Of these, the axis is the last one where none is named.
DEFAULT_IS_LAST = _names("sort argsort topk")


# Element by element. -----------------------------------------------------------------

ADDITIONS = _names("add add_ __add__ __radd__ __iadd__")

# Subtract the second argument; `rsub` and `__rsub__` subtract the first.
SUBTRACTIONS = _names("sub sub_ __sub__ __isub__ __rsub__ rsub")

# The sign of the second argument; `rsub` and `__rsub__` swap their arguments first.
SUM_SIGNS: Mapping[str, float] = MappingProxyType(
    dict.fromkeys(ADDITIONS, 1.0) | dict.fromkeys(SUBTRACTIONS, -1.0)
)

ELEMENTWISE_PRODUCTS = _names("mul mul_ multiply __mul__ __rmul__ __imul__")

# Divide the first argument by the second.
QUOTIENTS = _names("div div_ divide true_divide __truediv__ __itruediv__")

# Divide the second argument by the first.
REVERSED_QUOTIENTS = _names("__rtruediv__")

# Compute each number from the number in the same place, without being an activation.
ELEMENTWISE_FUNCTIONS = _names("""
    neg neg_ __neg__ abs abs_ __abs__ absolute sign round floor ceil real
    pow pow_ __pow__ __rpow__ square square_ sqrt sqrt_ rsqrt rsqrt_ reciprocal
    exp exp_ expm1 log log1p log2 sin cos tan atan erf
    addcmul addcmul_ addcdiv addcdiv_ lerp
    """)

# Limit, replace or choose numbers place by place.
ELEMENTWISE_CHOICES = _names("""
    maximum minimum clamp clamp_ clamp_min clamp_min_ clamp_max clamp_max_ clip clip_
    where masked_fill masked_fill_ nan_to_num
    """)

ACTIVATIONS = _names("""
    relu relu_ relu6 leaky_relu leaky_relu_ prelu rrelu elu elu_ celu celu_ selu selu_
    gelu silu silu_ mish mish_ hardswish hardswish_ hardsigmoid hardsigmoid_
    sigmoid sigmoid_ logsigmoid tanh tanh_ tanhshrink hardtanh hardtanh_
    softplus softsign hardshrink softshrink threshold threshold_ glu
    """)


# Along axes. -------------------------------------------------------------------------

# Reduce an axis, or all of them, to one number; `max` and `min` also compare two
# tensors place by place.
REDUCTIONS = _names("mean sum var std norm logsumexp max min amax amin")

SOFTMAXES = _names("softmax log_softmax softmin")

# Activations that turn logits into probabilities or their logarithms.
PROBABILITIES = _names("softmax log_softmax sigmoid")

# Order numbers by size: then a column is a rank, not a class.
SORTS = _names("topk sort msort")

# Give the places of ordered numbers.
INDEX_SORTS = _names("argsort")

# Take numbers from the places that indices name.
TAKINGS = _names("gather take_along_dim take index_select __getitem__")

# Take the largest or the least of several numbers.
EXTREMES = _names("max min amax amin")

NORMALISATIONS = _names("""
    layer_norm group_norm batch_norm instance_norm rms_norm normalize
    local_response_norm
    """)

RECURRENCES = _names("lstm gru rnn_tanh rnn_relu")


# Matrices. ---------------------------------------------------------------------------

MATRIX_PRODUCTS = _names("matmul __matmul__ bmm baddbmm mm addmm")

# Slide filters over the cells of a map, or of a row of tokens.
CONVOLUTIONS = _names("""
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d
    """)

# Apply one matrix to the vectors of their last axis.
LINEAR_FUNCTIONS = _names("linear addmm matmul __matmul__ mm")

# Mix an axis of units with weights and leave all other axes as they are.
LINEAR_LAYERS = _names("linear conv1d")

ATTENTIONS = _names("""
    scaled_dot_product_attention multi_head_attention_forward
    _native_multi_head_attention
    """)

# Mix the cells of a map among each other, as do all functions named `fft_…`.
CELL_MIXERS = _names("einsum cumsum fold conv3d kron tensordot bilinear")


# Maps. -------------------------------------------------------------------------------

# Slide a window over (batch, unit, row, col).
WINDOWS = _names("conv2d max_pool2d max_pool2d_with_indices avg_pool2d")

# Divide the cells of (batch, unit, row, col) evenly into more or fewer.
RESAMPLERS = _names("""
    adaptive_avg_pool2d adaptive_max_pool2d interpolate upsample pixel_shuffle
    pixel_unshuffle
    """)

# Require (batch, unit, row, col) where their first argument has four axes.
CHANNELS_FIRST = (
    WINDOWS
    | RESAMPLERS
    | _names("batch_norm instance_norm group_norm conv_transpose2d lp_pool2d")
    | _names("channel_shuffle native_channel_shuffle")
)

# Pool (batch, unit, token), or the map of `lp_pool2d`.
OTHER_POOLS = _names("avg_pool1d max_pool1d adaptive_avg_pool1d lp_pool2d")


# Take means of cells: sums with constant weights.
MEAN_POOLS = _names("""
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d
    """)

# Take the largest cell of each window.
MAXIMUM_POOLS = _names("""
    max_pool1d max_pool2d max_pool3d max_pool2d_with_indices adaptive_max_pool1d
    adaptive_max_pool2d
    """)

# Put cells or units elsewhere, enlarge maps, or add a border.
REARRANGEMENTS = _names("""
    pad roll pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle stack
    unfold fold
    """)


# What tracing needs. -----------------------------------------------------------------

# Compute every cell from the same cell of their arguments, or at least leave it where
# it is. A function that is in no set (sorting, gathering, writing to chosen places) may
# have put cells anywhere.
CELLWISE = (
    ADDITIONS
    | SUBTRACTIONS
    | ELEMENTWISE_PRODUCTS
    | QUOTIENTS
    | REVERSED_QUOTIENTS
    | ELEMENTWISE_FUNCTIONS
    | ELEMENTWISE_CHOICES
    | ACTIVATIONS
    | REDUCTIONS
    | SOFTMAXES
    | NORMALISATIONS
    | DROPOUTS
    | CASTS
    | COPIES
    | REPETITIONS
    | RECURRENCES
    | OTHER_POOLS
    | _names("_transformer_encoder_layer_fwd")
)


# What attribution needs. -------------------------------------------------------------

# Carry the numbers of pooled units along, in the same order.
CARRIERS = (
    CASTS
    | _names("contiguous clone detach data _to_copy")
    | _names("dropout dropout2d feature_dropout alpha_dropout")
    | _names("flatten unflatten view reshape squeeze unsqueeze")
    | _names("__getitem__ select")
)

# Reorder axes of pooled units. `t` would exchange the batch and the units.
UNIT_REORDERINGS = AXIS_REORDERINGS - {"t"}

# Divide pooled units by a constant.
UNIT_QUOTIENTS = QUOTIENTS - {"divide"}

# Divide all units of a photo by one number: the kind of number by name.
UNIT_NORMALISATIONS: Mapping[str, str] = MappingProxyType(
    {
        "layer_norm": "layer",
        "group_norm": "layer",
        "rms_norm": "root mean square",
        "normalize": "length",
    }
)

# Keep a divisor from being zero.
LIMITS_BELOW = _names("clamp clamp_ clamp_min clamp_min_ clip maximum max")

# Compute the length of a vector, to divide it by.
LENGTHS = _names("norm linalg_norm linalg_vector_norm")

# Return the shape and data type of their first argument.
SHAPE_KEEPERS = _names("""
    batch_norm layer_norm group_norm instance_norm relu gelu silu dropout
    """)
