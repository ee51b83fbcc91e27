"""Training and validation.

Training: `trainer` is the loop, `step` one optimiser step, `build` settles what the settings leave
open and makes the parts of a run, `model_source` its network, `field_measurement` its receptive
fields, `loaders` its batches, `optimizer` and `schedule` what moves it, `ema` the averaged weights,
`meter` its figures, `memory` the batch that fits, `hooks` what the user's own code sees of it.

Validation: `inference` runs a network over batches and over a split, `validator` is what `rfla val`
does and what follows each epoch.

State and files: `state` is what changes in a run, `checkpoint` the file that it is saved in,
`run_dir` the directory with weights and settings, `run_files` which of them are written when,
`run_log` the lines of a training and `results_csv` its table, `validation_files` the pictures and
pages of a validation, `console` how a line and a progress look.

Processes: `distributed` is several as one, `processes` how they are started, `device` what one
computes on.
"""
