"""Agents: one file an algorithm, one protocol, all of them batch-first."""

from recgym.agents.protocol import ActContext, Agent, AgentConfig, make_agent

__all__ = ["ActContext", "Agent", "AgentConfig", "make_agent"]
