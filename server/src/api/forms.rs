//! The forms of texts and spans, as the description of the API says them: what has the form may
//! still be impossible (422), what has not is malformed (400) or breaks a rule for names.

use utoipa::openapi::schema::{AnyOfBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat};
use utoipa::openapi::{RefOr, Type};
use utoipa::{PartialSchema, ToSchema};

use sprawl_core::ids::{MESSAGE_ID_BYTES_MAX, NAME_BYTES_MAX, NUMBER_MAX};

use crate::duration;

/// What a topic or a subscription is called.
pub(super) enum Name {}
/// A topic's name, or a pattern of them.
pub(super) enum Pattern {}
/// What a message is called.
pub(super) enum Id {}
/// A span as text.
pub(super) enum SpanText {}
/// A span as text, or as a number of seconds.
pub(super) enum Span {}
/// A position in a partition, or in a log.
pub(super) enum Position {}
/// What acknowledges a message.
pub(super) enum Token {}
/// Where a subscription begins.
pub(super) enum Beginning {}

fn text(pattern: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern))
}

macro_rules! form {
    ($name:ident, $schema:expr) => {
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                RefOr::T($schema.into())
            }
        }
        impl ToSchema for $name {}
    };
}

form!(
    Name,
    text(r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")
        .min_length(Some(1))
        .max_length(Some(NAME_BYTES_MAX))
);
form!(
    Pattern,
    text(r"^(>|([A-Za-z0-9_-]+|\*)(\.([A-Za-z0-9_-]+|\*))*(\.>)?)$")
        .min_length(Some(1))
        .max_length(Some(NAME_BYTES_MAX))
);
form!(
    Id,
    text(r"^[^\x00-\x1f\x7f-\x9f]+$").min_length(Some(1)).max_length(Some(MESSAGE_ID_BYTES_MAX))
);
form!(
    SpanText,
    text(concat!(
        "^([0-9]{1,12}(\\.[0-9]{1,9})?ms",
        "|[0-9]{1,9}(\\.[0-9]{1,9})?s?",
        "|[0-9]{1,7}(\\.[0-9]{1,9})?m",
        "|[0-9]{1,5}(\\.[0-9]{1,9})?h",
        "|[0-9]{1,4}(\\.[0-9]{1,9})?d)$",
    ))
);
form!(
    Span,
    AnyOfBuilder::new().item(SpanText::schema()).item(
        ObjectBuilder::new()
            .schema_type(Type::Number)
            .minimum(Some(0))
            .maximum(Some(duration::SPAN_MAX.as_secs()))
    )
);
form!(
    Position,
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(NUMBER_MAX))
);
form!(Token, text("^[0-9a-f]{1,16}-[0-9a-f]{1,16}-[0-9a-f]{1,8}$"));
form!(
    Beginning,
    AnyOfBuilder::new()
        .item(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .enum_values(Some(["latest", "earliest"]))
        )
        .item(Position::schema())
        .item(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        )
        .item(ObjectBuilder::new().schema_type(Type::Null))
);
