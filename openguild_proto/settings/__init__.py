"""The settings of the core: one frozen dataclass per section, with the default, bounds and meaning of each key.

The runtime fills them with pydantic (openguild_runtime/config), other programs for example with
`msgspec.convert({"replay_window": 7}, MessagingSettings)`.
"""
