"""Training and validation.

Training: `trainer` is the loop, `step` one optimiser step, `build` makes the parts of a run from
its settings (`recipe` settles what was left open), `loaders` the batches, `optimizer` the
optimiser, its schedule and the averaged weights, `meter` the figures, `memory` the batch that fits,
`hooks` a person's own code.

Validation: `inference` is the way of an image through a network and over a split, `validator` what
`rfla val` does, `model_source` networks from weights files.

State and files: `state` is what changes in a run, `checkpoint` the file that it is saved in,
`run_dir` the directory, `run_output` what a run writes and says, `report` pictures and pages,
`console` lines, progress and the table.

Processes: `distributed` is several as one, `processes` how they start and end, `device` what one
computes on.
"""
