"""How the contract writes the models' schemas: in forms that code generators of strictly typed languages can use."""

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

Field = core_schema.ModelField | core_schema.DataclassField | core_schema.TypedDictField


class Schemas(GenerateJsonSchema):
    """Writes no `default` and no title of a field, sizes of 64 bits, and null as a second type.

    A field with a default is one that an answer always has (openapi-typescript), though a request may leave it out; an
    integer without a format has 32 bits in Go, Java and C#.
    """

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Leave the default out: a description says what a missing field means."""
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 pydantic's signature
        """Leave the title out: it would only repeat the field's name."""
        return False

    def field_is_required(self, field: Field, total: bool) -> bool:  # noqa: FBT001 pydantic's signature
        """Dataclasses are parts of answers, and an answer has all their fields."""
        return field["type"] == "dataclass-field" or super().field_is_required(field, total)

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        """Integers have 64 bits."""
        return super().int_schema(schema) | {"format": "int64"}

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        """Other numbers have 64 bits too."""
        return super().float_schema(schema) | {"format": "double"}

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Write null as a second type. A reference has no type of its own: there it is one of two schemas."""
        inner = self.generate_inner(schema["schema"])
        if "type" in inner:
            return inner | {"type": [inner["type"], "null"]}
        return {"anyOf": [inner, {"type": "null"}]}
