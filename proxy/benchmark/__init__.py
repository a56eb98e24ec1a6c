"""The streaming benchmark: calls LLM APIs as applications do, and says what their callers wait for.

It knows nothing of the proxy: whatever speaks one of three APIs can be measured. One call is a `Sample` (client.py);
when calls begin is a `Load` (load.py); what is called is an `Arm`, one of several that take turns (run.py). What came
of it is summed up by summary.py and difference.py, and brought together by report.py.
"""
