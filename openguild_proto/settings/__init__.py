"""What may be configured: one frozen dataclass per section, which holds each key's default, bounds and meaning once.

The core reads the sections as they are. A program that has a configuration fills them: the runtime by way of pydantic
(openguild_runtime/config), any other with `msgspec.convert({"replay_window": 7}, MessagingSettings)`.
"""
