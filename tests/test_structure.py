"""Tests mirror the package: each module has a test file of its name, or one that is named here."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "reszoo"

# Test file -> modules that it tests, below reszoo/.
ELSEWHERE = {
    "bench/test_comparison.py": "bench/torch_sides",
    "bench/test_gpu.py": "bench/figure6 bench/plan",
    "bench/test_sides.py": "bench/child bench/photographs bench/tensorflow_sides",
    "bench/test_turns.py": "machine",
    "cli/test_main.py": "__main__ cli/bench cli/convert cli/export cli/lab cli/list cli/output "
    "cli/recipes cli/serve_check cli/show cli/train cli/tune",
    "cli/test_scoring.py": "cli/evaluate cli/explain cli/image_argument cli/model_argument "
    "cli/predict",
    "comparison/test_compare.py": "comparison/page cli/compare",
    "config/test_recipe.py": "config/model config/optimizer config/overrides "
    "config/resolve config/tomlfile config/training validation/messages validation/table",
    "data/test_folder.py": "data/corruption data/file_reading data/loading images/bit_depth",
    "data/test_pipeline.py": "data/batches data/dataset data/embedded data/random_keys",
    "data/test_stream_batches.py": "data/batch_order data/memory_batches",
    "data/test_summary.py": "data/info",
    "evaluation/test_scores.py": "evaluation/evaluator",
    "evaluation/test_predict.py": "evaluation/reading",
    "evaluation/test_plots.py": "reporting/plots",
    "exporting/test_formats.py": "exporting/card exporting/float16 exporting/litert "
    "exporting/onnx_file",
    "exporting/test_parity.py": "exporting/runtimes",
    "data/test_inspection.py": "data/inspection_page",
    "exporting/test_savedmodel.py": "exporting/pixels exporting/signatures",
    "images/test_header.py": "images/exif",
    "images/test_preprocessing.py": "images/decoding images/resizing",
    "claims/test_run.py": "claims/page claims/verdicts cli/claims",
    "lab/test_ablation.py": "lab/ablation_page",
    "lab/test_drift.py": "lab/drift_page lab/sampling",
    "lab/test_identity.py": "lab/identity_page",
    "lab/test_inference.py": "lab/inference_page",
    "lab/test_landscape.py": "lab/landscape_page",
    "lab/test_resemblance.py": "lab/resemblance_measures lab/resemblance_page",
    "lab/test_lesion.py": "lab/lesion_page lab/digit_models",
    "lab/test_propagation.py": "lab/propagation_page",
    "lab/test_report.py": "lab/record reporting/page reporting/template",
    "lab/test_degradation.py": "lab/statistics",
    "models/test_build.py": "models/blocks models/shortcuts models/stems",
    "models/test_layers.py": "models/initializers",
    "models/test_grow.py": "models/equivalence",
    "serving/test_rest.py": "serving/servable",
    "serving/test_server.py": "serving/versions",
    "test_doctor.py": "cli/doctor",
    "test_keywords.py": "errors",
    "test_layers.py": "training/protocols",  # names only
    "test_loading.py": "lazy",
    "test_trainer.py": "run_results training/failures training/run training/setup training/tensorboard",
    "test_upstream.py": "models/graph",
    "training/test_block_functions.py": "training/traced_call",
    "training/test_components.py": "data/own_data references",
    "training/test_callbacks.py": "training/callback_checks training/callback_state",
    "training/test_finetune.py": "training/finetuning",
    "training/test_model_file.py": "registration",
    "training/test_resume.py": "training/state training/progress",
    "training/test_start.py": "training/data_location",
    "training/test_step.py": "training/gradients training/compiled",
    "tuning/test_report.py": "tuning/figures tuning/formatting",
    "tuning/test_proposals.py": "tuning/history tuning/sampling",
    "tuning/test_results.py": "tuning/best_recipe tuning/records",
    "tuning/test_space.py": "tuning/config tuning/hyperparameters tuning/plan",
    "tuning/test_trial.py": "training/memory",
    "tuning/test_tune.py": "tuning/progress tuning/start tuning/tuner",
    "tuning/test_workers.py": "tuning/environment",
    "weights/test_convert.py": "exporting/convert weights/detection weights/layouts",
    "weights/test_load.py": "weights/checkpoint weights/hdf5_file",
    "zoo/test_spec.py": "zoo/conflicts zoo/fields",
}


def test_every_module_has_a_test_file() -> None:
    named = [module for modules in ELSEWHERE.values() for module in modules.split()]
    assert len(named) == len(set(named))
    modules = {
        path.relative_to(PACKAGE).with_suffix("").as_posix()
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    }
    mirrored = {
        module
        for module in modules
        if (TESTS / Path(module).parent / f"test_{Path(module).name}.py").is_file()
    }
    assert modules - mirrored == set(named)


def test_the_named_test_files_exist() -> None:
    assert [name for name in ELSEWHERE if not (TESTS / name).is_file()] == []
