"""From a trained model to scores: export, deployment on Triton and batch scoring.

Import the public names from their modules:

- `serving.server.TritonServer`: an embedded Triton server, or a handle on remote servers;
- `serving.deployment.deploy` and `rollback`: promote a model folder, or return to an earlier version;
- `serving.scorer.score_sessions`: ranked lists for sessions, as a stream;
- `serving.item_scorer.score_items`: ranked lists for items, as a stream;
- `serving.in_process.InProcessServer` and `InProcessScorer`: the same interface without Triton;
- `serving.gates`: quality gates for a deployment.

The package exports no name itself. Every `import serving.<module>` runs this file, which would then load torch and
tritonclient for modules that need neither. It does not import Dagster.
"""

__all__: list[str] = []
