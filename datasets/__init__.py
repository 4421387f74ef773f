"""Images with the label maps of one or more annotators.

A data set is any importable module, the user's own too, that is named by `dataset_file` and has

    get_dataset(split, **dataset_params)

which returns a `torch.utils.data.Dataset` for the split "train", "val" or "test" with the attributes

    num_classes       C
    image_channels    channels of its images

and items that are dicts:

    image     float32, channels x H x W, scaled as the network wants it
    labels    uint8, A x H x W, classes 0 .. C-1: one label map per annotator
    name      str
    group     int, optional: images of one patient share it

The number of annotators A may differ from image to image. A data set whose true label distribution is known may also
offer `draw_labels(index, num_samples, seed)`, fresh label maps (num_samples x H x W) to serve as an oracle.
"""

from datasets.loading import AnnotatedDataset, KnownDistribution, load_dataset

__all__ = ["AnnotatedDataset", "KnownDistribution", "load_dataset"]
