"""A view of runs in MLflow's UI, saved in the store: which runs, in which groups, with which charts."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

PREFIX = "mlflow.sharedViewState."
"""Of the tag of an experiment that holds a view, as MLflow's own "share" button writes it."""
WORKFLOW = "machine_learning"
"""Else MLflow's side bar is about language models."""
LARGEST = 19_000
"""Characters of such a tag; MLflow takes 20,000."""
FIRST = "Headline metrics"


def view_key(run_id: str) -> str:
    """The name of a study's view."""
    return run_id[:12]


def page(experiment: str, key: str) -> str:
    """The part of the UI's address behind the server's that opens a saved view."""
    chosen = {"workflowType": WORKFLOW, "viewStateShareKey": key, "compareRunsMode": "CHART"}
    return f"/#/experiments/{experiment}/runs?{urlencode(chosen)}"


def charts(experiment: str) -> str:
    """The part of the UI's address that opens the charts of all runs of an experiment."""
    return f"/#/experiments/{experiment}/runs?{urlencode({'workflowType': WORKFLOW, 'compareRunsMode': 'CHART'})}"


def view(where: str, group: str, lines: Sequence[str], bars: Sequence[str], hidden: Sequence[str] = ()) -> str:
    """The tag's value: the charts of these metrics first, then those that MLflow makes of all others.

    Args:
        where: which runs, in MLflow's language.
        group: the tag whose values tell groups apart; a chart shows each group's mean in a band from least to largest.
        lines: metrics to draw over the steps.
        bars: metrics of which the last value counts.
        hidden: metrics without a chart.
    """
    charts = [_chart("LINE", name) for name in lines]
    charts += [_chart("BAR", name) for name in bars]
    charts += [_chart("LINE", name, hidden=True) for name in hidden]
    state = {
        "searchFilter": where,
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": ["attributes.`Source`", *(f"metrics.`{name}`" for name in (*lines, *bars))],
        "columnOrder": [],
        "columnWidths": {},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": charts,
        "compareRunSections": [{"uuid": FIRST, "name": FIRST, "display": True, "isReordered": True, "deleted": False}],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,  # else MLflow sorts the sections by their names
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": group}]},
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
    text = packed(state)
    if len(text) > LARGEST and hidden:
        return view(where, group, lines, bars, hidden[: len(hidden) // 2])
    return text


def packed(state: Mapping[str, Any]) -> str:
    """JSON as MLflow packs it into a tag."""
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()


def _chart(kind: str, metric: str, hidden: bool = False) -> dict[str, Any]:
    own = {
        "type": kind,
        "uuid": f"{kind}-{metric}",
        "runsCountToCompare": 100,
        "metricSectionId": FIRST,
        "deleted": hidden,
        "isGenerated": False,  # MLflow would make lines of bars
        "metricKey": metric,
    }
    if kind == "LINE":
        own |= {
            "lineSmoothness": 0,
            "xAxisScaleType": "linear",
            "scaleType": "linear",
            "xAxisKey": "step",
            "selectedXAxisMetricKey": "",
            "yAxisKey": "metric",
            "yAxisExpressions": [],
            "ignoreOutliers": False,
            "useGlobalXaxisKey": True,
            "useGlobalLineSmoothing": True,
        }
    return own
