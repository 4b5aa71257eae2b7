"""NeMo Data Designer on the same stub: two dependent text columns. Runs in an environment of its own (infra/designer.txt).

    python infra/designer.py URL ROWS IN_FLIGHT FOLDER

makes them and checks that none is missing; who serves URL takes the time.
"""

from __future__ import annotations

import sys


def main(url: str, rows: str, flight: str, folder: str) -> None:
    """Make the rows in `folder`."""
    import data_designer.config as dd
    from data_designer.interface import DataDesigner

    provider = dd.ModelProvider(name="stub", endpoint=url, provider_type="openai", api_key="none")
    parameters = dd.ChatCompletionInferenceParams(max_parallel_requests=int(flight), temperature=1.0, max_tokens=256, timeout=60)
    model = dd.ModelConfig(alias="stub", model="stub", provider="stub", inference_parameters=parameters, skip_health_check=True)
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    builder.add_column(dd.SamplerColumnConfig(name="row", sampler_type=dd.SamplerType.UUID, params=dd.UUIDSamplerParams()))
    text = "Write one order that a customer of a shop could have placed, with items and prices, for row {{ row }}. " * 6
    builder.add_column(dd.LLMTextColumnConfig(name="draft", prompt=text, model_alias="stub"))
    builder.add_column(dd.LLMTextColumnConfig(name="vote", prompt="Judge this draft of row {{ row }}: {{ draft }}", model_alias="stub"))
    designer = DataDesigner(artifact_path=folder, model_providers=[provider])
    designer.set_run_config(dd.RunConfig(otel_metrics_port=None))
    found = designer.create(builder, num_records=int(rows), dataset_name="bench")
    assert len(found.load_dataset()) == int(rows), "rows are missing"


if __name__ == "__main__":
    main(*sys.argv[1:])
