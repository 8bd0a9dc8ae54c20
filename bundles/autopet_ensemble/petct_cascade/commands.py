"""Commands of the ensemble, as configs and the command line call them: a wrong input ends them with a sentence and an exit code.

In a notebook call the functions of the same names in the other modules: they raise an `InputError` instead.
"""

from petct_cascade import assemble as _assemble
from petct_cascade import evaluation as _evaluation
from petct_cascade import inference as _inference
from petct_cascade import items as _items
from petct_cascade import phantom as _phantom
from petct_cascade import pipeline as _pipeline
from petct_cascade import prepare as _prepare
from petct_cascade import published as _published
from petct_cascade import readout_run as _readout_run
from petct_cascade import scoring as _scoring
from petct_cascade import selection as _selection
from petct_training.commands import command

assemble = command(_assemble.assemble)
check_weights = command(_assemble.check_weights)
require_weights = command(_assemble.require_weights)
evaluate = command(_evaluation.evaluate)
infer = command(_inference.infer)
reference_items = command(_items.reference_items)
validation_items = command(_items.validation_items)
write_phantoms = command(_phantom.write_phantoms)
run_pipeline = command(_pipeline.run_pipeline)
prepare = command(_prepare.prepare)
import_weights = command(_published.import_weights)
read_out_folder = command(_readout_run.read_out_folder)
score_folder = command(_scoring.score_folder)
select_studies = command(_selection.select_studies)
