"""Images with the label maps of one or more annotators.

A data set is any importable module, the user's own too, that is named by `dataset_file` and has

    get_dataset(split, **dataset_params)

which returns a `torch.utils.data.Dataset` for the split "train", "val" or "test" with the attributes

    num_classes                C, at most 256
    image_channels             channels of its images

    class_names                C names; these and the following are optional
    class_colours              C triples of red, green and blue, 0 .. 255
    class_ids                  C numbers, 0 .. 255, that stand for the classes in pictures of predictions; 0 .. C-1 by
                               default
    void_class                 the class that is not evaluated and that class_weights uniform and weighted leave out. A
                               data set with one has one label map an image, and is evaluated by mean IoU
    original_labels            whether items carry the labels of that name; the evaluation switches it on
    image_mean, image_std      for every channel: the image is (x - mean) / std of intensities x in [0, 1]; by default
                               0.5 and 0.5. Colour jitter and the 8-bit cache go by it
    source                     the file or folder that it reads, for messages

and items that are dicts:

    image             float32, channels x H x W, scaled as the network wants it
    labels            uint8, A x H x W, classes 0 .. C-1: one label map per annotator
    name              str
    group             int, optional: images of one patient share it
    original_labels   uint8, A x H' x W', optional: the label maps before they were resized, for evaluation

The number of annotators A may differ from image to image. A data set whose true label distribution is known may also
offer `draw_labels(index, num_samples, seed)`, fresh label maps (num_samples x H x W), and `label_probabilities(index)`,
the true probability of each class at each pixel (C x H x W), to serve as an oracle. One that knows a quick way to count
the pixels of its classes may offer `class_counts()` (int64, C).
"""

from datasets.loading import AnnotatedDataset, KnownDistribution, load_dataset

__all__ = ["AnnotatedDataset", "KnownDistribution", "load_dataset"]
