// Generated from documents.schema.json by scripts/document_types.py: change that, not this.

declare namespace Documents {
  /** What every page needs: the network, its classes, photos to start from, and the atlas's columns. */
  type Index = {
    /** Whether a server answers; false in a copy. */
    live: boolean;
    architecture: string;
    /** By class of the model. */
    labels: string[];
    input: Sides;
    /** Whether the weights are random. */
    random: boolean;
    scores: Scores;
    /** Null without a model. */
    model: Model | null;
    head: Head | null;
    /** Colour tables: 256 colours as rrggbb. */
    colours: {
      heat: string[];
      signed: string[];
    };
    photos: PhotoChoice[];
    /** Null without an atlas. */
    atlas: Atlas | null;
  };

  /** How the network's numbers become probabilities, and what they are called. */
  type Scores = {
    kind: "softmax" | "sigmoid" | "none" | "probabilities";
    /** What one number is called: logit, output or probability. */
    number: string;
    /** The plural of that. */
    numbers: string;
    /** The kind in words. */
    words: string;
  };

  /** The model that a live server runs. */
  type Model = {
    spec: string;
    weights: string;
    preprocessing: string;
    /** Layers at which photos can be explained. */
    layers: string[];
    notes: string[];
  };

  /** The kind of answers that photos get. */
  type Head = {
    exact: boolean;
    layer: string | null;
    kind: string;
    /** Why the head is not exact; empty if it is. */
    reason: string;
  };

  /** A photo offered on the first page. */
  type PhotoChoice = {
    id: string;
    name: string;
    /** Its label; empty if unknown. */
    class: string;
    /** Whether it is an image of the atlas. */
    kept: boolean;
  };

  /** Rows and columns. */
  type Sides = [number, number];

  /** The centre of the first cell and the step between cells, in pixels of the input. */
  type Axis = [number, number];

  /** How many cells a map has, and where they lie on the input. */
  type Map = {
    rows: number;
    cols: number;
    down: Axis;
    across: Axis;
  };

  /** Base64 of little-endian float32. */
  type Floats = string;

  /** Base64 of bytes. */
  type Bytes = string;

  type Numbers = number[];

  /** Null where not measured. */
  type Estimates = (number | null)[];

  type Counts = number[];

  type Labels = (string | null)[];

  type Flags = boolean[];

  /** Null for none. */
  type Places = (number | null)[];

  /** The atlas: columns over all units and classes, and how it was scanned. */
  type Atlas = {
    /** The data set's name. */
    data: string;
    images: number;
    /** Whether the data set has labels; else classes are predictions. */
    given: boolean;
    /** Whether accuracy is agreement with the whole network. */
    againstItself: boolean;
    complete: boolean;
    /** The share of cells at or above each threshold, at most. */
    quantile: number;
    layers: Layer[];
    classes: ClassColumns;
    /** Classes per document. */
    classChunk: number;
    /** How it was scanned: a term and its text, or several lines. */
    about: ([string, string | string[]])[];
    tiles: Tiles;
    /** How many images have no tile. */
    missing: number;
  };

  type Tiles = {
    perFolder: number;
    suffix: "webp" | "jpg";
    /** Why a tile is missing, by state. */
    states: string[];
    /** The state of a tile that exists. */
    drawn: number;
  };

  /** A scanned layer. */
  type Layer = {
    name: string;
    kind: string;
    units: number;
    cells: Sides;
    /** Whether the head reads it. */
    head: boolean;
    /** Of heads of attention: block.head. */
    names?: string[];
    /** Units per document. */
    chunk: number;
    /** Whether activations can be negative. */
    signed: boolean;
    /** Maps hold the maximum of squares of this many cells a side. */
    factor: number;
    map: Map;
    /** Edges of the histogram's bins, and the share of one cell. */
    bins: {
      edges: Numbers;
      floor: number;
    };
    columns: UnitColumns;
  };

  /** By unit. Concepts and accuracies are absent where they were not measured. */
  type UnitColumns = {
    maximum: Numbers;
    mean: Estimates;
    threshold: Estimates;
    share_above: Numbers;
    share_positive: Numbers;
    dead: Flags;
    best_class: Places;
    best_class_name: Labels;
    selectivity: Estimates;
    selectivity_low: Estimates;
    selectivity_high: Estimates;
    name?: Labels;
    named_by?: ("concept" | "class" | null)[];
    concept?: Places;
    concept_name?: Labels;
    category?: Labels;
    iou?: Estimates;
    iou_low?: Estimates;
    iou_high?: Estimates;
    p_value?: Estimates;
    detector?: Flags;
    accuracy?: Estimates;
    accuracy_low?: Estimates;
    accuracy_high?: Estimates;
    accuracy_change?: Estimates;
    /** What a head gives to the predicted class, on average. */
    contribution_mean?: Estimates;
    /** The size of that, on average. */
    contribution_size?: Estimates;
    /** Histograms as letters: one a bin, 0 to z. */
    spark: string[];
    [name: `quantile_${string}`]: Estimates;
  };

  /** By class of the data set. */
  type ClassColumns = {
    name: string[];
    /** The class of the model that it is. */
    target: Places;
    images: Counts;
    judged: Counts;
    found: Counts;
    accuracy: Estimates;
    accuracy_low: Estimates;
    accuracy_high: Estimates;
    predicted: Places;
    /** By the class's own logit; where classes have a sigmoid each. */
    average_precision?: Estimates;
  };

  /** File name, class, predicted class of the model, its probability (null where scores have none), and the state of the tile. */
  type ImageRow = [string, number | null, number, number | null, number];

  /** By the number of the image. */
  type ImageRows = {
    [name: number]: ImageRow;
  };

  /** A chunk of a layer's units, and all images that they refer to. */
  type Units = {
    units: Unit[];
    images: ImageRows;
  };

  /** What a unit's page shows beyond the columns. Absent keys were not measured. */
  type Unit = {
    /** Share of cells by bin. */
    histogram: Numbers;
    /** Share of cells that are 0. */
    zero: number;
    /** Share of cells above 0 and below the first bin. */
    less: number;
    maximum: ImageMaps;
    mean: ImageMaps;
    range: SampleMaps;
    classes: ClassMean[];
    concepts?: ConceptMatch[];
    hurt?: Importance[];
    helped?: Importance[];
  };

  /** Images with the unit's score, the peak of its map, and the maps in 255 steps of their peak. */
  type ImageMaps = {
    images: Counts;
    scores: Numbers;
    peaks: Numbers;
    maps: Bytes;
  };

  /** The same for images of a random sample, with their ranks among the sample's images. */
  type SampleMaps = {
    images: Counts;
    scores: Numbers;
    peaks: Numbers;
    maps: Bytes;
    ranks: Counts;
    of: number;
  };

  /** Class, its images, the unit's mean activation on them, and the ends of its interval. */
  type ClassMean = [number, number, number, number | null, number | null];

  /** Concept, category, IoU, the ends of its interval, IoU by chance, and the largest by chance. */
  type ConceptMatch = [string, string | null, number | null, number | null, number | null, number | null, number | null];

  /** Class or unit, the balanced accuracy that the class loses without the unit, the ends of its interval, the balanced accuracy left, and the unit's mean contribution. */
  type Importance = [number, number, number | null, number | null, number | null, number | null];

  /** The units that respond most like each of a chunk of units: unit and correlation. */
  type Neighbours = {
    /** What means were compared over. */
    of: "images" | "classes" | "sample";
    count: number;
    units: [number, number][][];
  };

  /** A chunk of the classes, and all images that they refer to. */
  type Classes = {
    classes: Class[];
    images: ImageRows;
  };

  /** What a class's page shows beyond the columns. Absent keys were not measured. */
  type Class = {
    /** Images classified correctly, most confident first. */
    found: Counts;
    /** Images classified wrongly, most confident first. */
    missed: Counts;
    answering: Response[];
    removals?: Removal[];
    important?: Importance[];
  };

  /** Layer, unit, its mean on the class as a multiple of its overall mean, the mean, and the ends of its interval. */
  type Response = [number, number, number, number, number | null, number | null];

  /** Order of removal, units off, balanced accuracy, the ends of its interval, and accuracy. */
  type Removal = ["none" | "most important" | "least important" | "random" | "chance", number, number | null, number | null, number | null, number | null];

  /** How pooled units become logits: weight (class, unit), bias (class), and a normalisation of the units. */
  type Readout = {
    classes: number;
    units: number;
    weight: Floats;
    bias: Floats;
    norm: Normalisation | null;
  };

  type Normalisation = {
    kind: "layer" | "root mean square" | "length";
    eps: number;
  };

  /** What the network says of a photo. */
  type Photo = ExactPhoto | LocalPhoto;

  /** A map, and whether its cells were traced through the network. */
  type PhotoMap = {
    rows: number;
    cols: number;
    down: Axis;
    across: Axis;
    traced: boolean;
  };

  /** Left, top, right and bottom of the input on the photo, in pixels of the photo. */
  type Box = [number, number, number, number];

  /** Maps, contributions and ablations follow from the features (unit, row, col) and the head. */
  type ExactPhoto = {
    id: string;
    name: string;
    /** The address of the picture. */
    picture: string;
    /** Width and height of the photo. */
    size: Sides;
    box: Box;
    input: Sides;
    map: PhotoMap;
    exact: true;
    layer: string;
    units: number;
    logits: Floats;
    features: Floats;
    /** Whether some features are what cells give of the pooled unit (of a maximum, say), times the number of cells, and no activations. */
    shares: boolean;
    /** Exact means, where an atlas keeps features with fewer digits. */
    pooled?: Floats;
  };

  /** Maps and contributions are measured class by class; maps of units come small. */
  type LocalPhoto = {
    id: string;
    name: string;
    /** The address of the picture. */
    picture: string;
    /** Width and height of the photo. */
    size: Sides;
    box: Box;
    input: Sides;
    map: PhotoMap;
    exact: false;
    layer: string;
    units: number;
    logits: Floats;
    method: string;
    thumbnails: Floats;
    thumbnail: Sides;
    /** Where the units are heads of attention, and the logits sums of parts. */
    heads?: Heads;
  };

  /** Heads of attention, and the parts that add up to the logits. */
  type Heads = {
    /** By unit: block.head. */
    names: string[];
    parts: LogitPart[];
    /** Whether numbers that the photo sets multiply the stream: they count as constants. */
    held: boolean;
  };

  /** A part of the logits of all classes. */
  type LogitPart = {
    name: string;
    logits: Floats;
  };

  /** What patches give to a class through one head: a map (row, col), in logits. */
  type HeadMap = {
    map: Floats;
  };

  /** A local answer for one class: map (row, col), contributions (unit), and what they leave out of the logit. */
  type Evidence = {
    map: Floats;
    contributions: Floats;
    left_out: number;
  };

  /** The logits with units off. */
  type Ablated = {
    /** By a real forward pass where the head is not exact. */
    logits: Floats;
    /** Without heads of attention: when only what they write to the logits is gone. */
    direct?: Floats;
  };

  /** The id of a photo that a page sent. */
  type StoredPhoto = {
    photo: string;
  };

  /** The network: its head in words, the diagram of its stages, and all layers stage by stage. */
  type Network = {
    summary: string;
    architecture: string;
    parameters: number;
    classes: number;
    input: Counts;
    head: NetworkHead;
    diagram: Diagram;
    stages: Stage[];
    /** Convolutions whose kernels can be shown. */
    filters: string[];
  };

  /** The head in words, how it was verified, and why it is not exact. */
  type NetworkHead = {
    exact: boolean;
    kind: string;
    layer: string | null;
    words: string;
    checked: string;
    reason: string;
  };

  type Diagram = {
    key: string;
    description: string;
    /** For a wide, a middle and a narrow page. */
    plans: Plan[];
  };

  /** The diagram laid out, in pixels. */
  type Plan = {
    width: number;
    height: number;
    /** From x, y to x, y. */
    arrows: [number, number, number, number][];
    parts: Part[];
  };

  /** A volume of the diagram; `stage` is a place in `stages`. */
  type Part = {
    kind: "input" | "map" | "pool" | "classes";
    stage: number | null;
    title: string;
    /** Corners of each face: x, y, x, y … */
    faces: {
      top: Numbers;
      side: Numbers;
      front: Numbers;
    };
    /** Texts: x, y, text. */
    lines: [number, number, string][];
  };

  /** Layers of one shape of map, in order of execution. */
  type Stage = {
    shape: Counts;
    convolutions: number;
    first: string;
    last: string;
    layers: NetworkLayer[];
  };

  type NetworkLayer = {
    name: string;
    kind: string;
    shape: string;
    parameters: number;
    leaf: boolean;
    map: boolean;
    head: boolean;
    filters: Convolution | null;
  };

  /** A convolution's name and the shape of its kernels. */
  type Convolution = {
    layer: string;
    size: Counts;
    groups: number;
    channels: number;
  };

  /** Kernels of a convolution as pictures, a byte a weight: `count` filters from `begin`, at most `most` per document. */
  type Filters = {
    layer: string;
    kind: string;
    words: string;
    filters: number;
    channels: number;
    rows: number;
    cols: number;
    groups: number;
    begin: number;
    count: number;
    most: number;
    /** What a picture shows. */
    of: "kernel" | "rgb" | "filter";
    /** 0 to 255 from `low` to `high` of each picture. */
    pixels: Bytes;
    low: Floats;
    high: Floats;
    /** Of the whole layer. */
    least: number;
    greatest: number;
    scales: {
      kernel: string;
      shared: string;
    };
  };

  /** The type of the document of a name. */
  type Named<Name extends string> =
    Name extends "index" ? Index :
    Name extends "head" ? Readout :
    Name extends "network" ? Network :
    Name extends `filters/${string}` ? Filters :
    Name extends `photos/${string}` ? Photo :
    Name extends "photos" ? StoredPhoto :
    Name extends "evidence" ? Evidence :
    Name extends "head-map" ? HeadMap :
    Name extends "ablated" ? Ablated :
    Name extends `units-${number}-${number}` ? Units :
    Name extends `neighbours-${number}-${number}` ? Neighbours :
    Name extends `classes-${number}` ? Classes :
    never;
}
