"""Training, in reading order:

compatibility   what is known before anything is read: the model of a run, and what does not fit together
optimizer       one optax chain from a gradient to an update; learning rates
processes       several processes of one run: sums over the devices of all, what process 0 has, the same run in each
train_step      one update of one or more seeds on any number of devices: the only pmap
run_state       what a run carries from update to update beside its TrainState; how it is resumed
best            which validation is the best
records         the metrics as CSV and for TensorBoard and W&B
hooks           what a run does beside its updates: log, validate, keep checkpoints, save
preemption      SIGTERM
without_effect  settings that cannot act in a run of this length
loop            `fit`: updates over a stream of batches, with the hooks
teacher_cache   a fixed teacher's features of a corpus, computed once
teacher_top_k   its most probable entries at every label, computed once, in files that several runs share
trainer         `train_model` and `train_translator`: corpora, teacher, validation and checkpoints, tied to `fit`
"""
