"""The demonstration: the real agent and the emulator as processes of their own, and a story that is played to them.

``stage`` starts and stops what takes part, ``story`` plays, ``view`` shows. What is told is read from the agent's
own log and status; nothing is staged but the provider's behaviour.
"""
