"""Maps of how dense objects are."""

from rfla.pictures.density import plot_density
from rfla.predict.names import Name
from rfla.predict.outputs.output import Output
from rfla.results import Results


class Density(Output):
    """`density/town/a.png`: objects in each cell of an image; not of frames of videos."""

    key = "save_density"

    def add(self, name: Name, results: Results) -> None:
        """Write one image's map."""
        if name.frame_of is None:
            path = self.path_of(name, ".png", "density")
            boxes, shape = results.boxes.xyxy, results.orig_shape
            plot_density(path, results.orig_img, boxes, shape, name.image_id)
