"""The settings of the core: one frozen dataclass per section, with the default, bounds and meaning of each key.

The runtime fills them with pydantic (openguild_runtime/config). Other programs may use, for example,
`msgspec.convert({"replay_window": 7}, MessagingSettings)`.
"""
