"""Steps of a network bundle's run, as its configs call them: a wrong input ends them with a sentence and an exit code.

In a notebook call the functions of the same names in the other modules: they raise an `InputError` instead.
"""

from petct_training import checks as _checks
from petct_training import data as _data
from petct_training import files as _files
from petct_training import folds as _folds
from petct_training import inference as _inference
from petct_training import masks as _masks
from petct_training import sampling as _sampling
from petct_training import saving as _saving
from petct_training import seen as _seen
from petct_training import sockets as _sockets
from petct_training import training as _training
from petct_training.commands import command

check_prepared = command(_checks.check_prepared)
check_trained = command(_checks.check_trained)
check_studies = command(_checks.check_studies)
check_lesions = command(_checks.check_lesions)
check_processes = command(_checks.check_processes)
warn_of_few_studies = command(_checks.warn_of_few_studies)
check_patch_size = command(_checks.check_patch_size)
check_weights = command(_checks.check_weights)
held_out = command(_folds.held_out)
check_unseen = command(_folds.check_unseen)
check_coarse_masks = command(_folds.check_coarse_masks)
make_folder = command(_files.make_folder)
studies_of_training = command(_seen.studies_of_training)
warn_of_seen = command(_seen.warn_of_seen)
read_items = command(_data.read_items)
shorten_socket_paths = command(_sockets.shorten_socket_paths)
study_weights = command(_sampling.study_weights)
resume = command(_saving.resume)
train = command(_training.train)
infer = command(_inference.infer)
unfinished_items = command(_masks.unfinished_items)
