"""Images with the label maps of one or more annotators.

A dataset is any importable module that `dataset_file` names, including your own, with a function

    get_dataset(split, **dataset_params)

that returns a `torch.utils.data.Dataset` for the split "train", "val" or "test", with the attributes

    num_classes                C, at most 256
    image_channels             channels of the images

    class_names                optional, as are all of the following: C names
    class_colours              C triples of red, green and blue, 0 .. 255
    class_ids                  C numbers, 0 .. 255, that encode the classes in files of predictions; 0 .. C-1 by default
    void_class                 the class that is not evaluated and that class_weights uniform and weighted give weight 0
    original_labels            whether items have labels of that name; the evaluation asks for them
    image_mean, image_std      per channel: the image is (x - mean) / std of intensities x in [0, 1]; 0.5 and 0.5 by
                               default. Colour jitter and the 8-bit cache rely on them
    max_annotators             the largest number of label maps of an image, if that is known without reading them
    source                     the file or folder that is read, for messages
    source_files               the files that are read; `source` by default. If one of them has changed, cached results
                               of an evaluation are not used
    benchmark                  LIDCv1, LIDCv2 or Cityscapes, whose published numbers the evaluation then shows

and items that are dicts:

    image             float32, channels x H x W, scaled as the network expects it
    labels            uint8, A x H x W, classes 0 .. C-1: one label map per annotator
    name              str
    group             int, optional: images of the same patient have the same number
    original_labels   uint8, A x H' x W', optional: the label maps before they were resized, for the evaluation

The number of annotators A may differ between images. A dataset whose true label distribution is known may offer
`draw_labels(index, num_samples, seed)`, label maps sampled from it (num_samples x H x W), and
`label_probabilities(index)`, the true probability of each class at each pixel (C x H x W): the evaluation then also
scores this oracle. A dataset with a fast way to count the pixels of its classes may offer `class_counts()` (int64, C).
"""

from datasets.contract import AnnotatedDataset, KnownDistribution
from datasets.loading import load_dataset

__all__ = ["AnnotatedDataset", "KnownDistribution", "load_dataset"]
