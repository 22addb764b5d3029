//! The macros that make a stored form of a list of numbered fields. They use the names that `records` imports.

/// Values behind an `Arc`, written as themselves.
macro_rules! shared {
    ($($type:ty),* $(,)?) => {$(
        impl Value for std::sync::Arc<$type> {
            fn write(&self, field: u32, out: &mut Encoder) {
                Value::write(&**self, field, out);
            }

            fn write_unless_default(&self, field: u32, out: &mut Encoder) {
                (**self).write_unless_default(field, out);
            }

            fn read(wire: WireType, input: &mut Decoder<'_>) -> Result<Self, CodecError> {
                <$type>::read(wire, input).map(Self::new)
            }

            fn absent() -> Result<Self, CodecError> {
                <$type>::absent().map(Self::new)
            }
        }
    )*};
}

/// Structs: `Type { 1: field, … }`. Every field must be named, or it does not compile.
macro_rules! record {
    ($($type:ident { $($number:literal: $field:ident),* $(,)? })*) => {$(
        impl Record for $type {
            fn encode_fields(&self, out: &mut Encoder) {
                let Self { $($field),* } = self;
                $(Field::write_field($field, $number, out);)*
            }

            #[deny(unreachable_patterns)]
            fn decode_fields(input: &mut Decoder<'_>) -> Result<Self, CodecError> {
                $(let mut $field = None;)*
                while let Some((number, wire)) = input.key()? {
                    match number {
                        $($number => Field::read_field(&mut $field, wire, input)?,)*
                        _ => input.skip(number, wire)?,
                    }
                }
                Ok(Self { $($field: Field::finish($field)?),* })
            }
        }
    )*};
}

/// Enums with fields: `Enum { 1: Variant { 1: field, … }, … }`, written as a message with the variant as its one
/// field. Every variant and every field must be named, or it does not compile.
macro_rules! variants {
    ($($type:ident { $(
        $number:literal: $variant:ident $({ $($n:literal: $field:ident),* })? $(( $($tn:literal: $tuple:ident),* ))?
    ),* $(,)? })*) => {$(
        impl Record for $type {
            fn encode_fields(&self, out: &mut Encoder) {
                match self {
                    $(Self::$variant $({ $($field),* })? $(( $($tuple),* ))? => {
                        out.message($number, |_out| {
                            $($(Field::write_field($field, $n, _out);)*)?
                            $($(Field::write_field($tuple, $tn, _out);)*)?
                        });
                    })*
                }
            }

            #[deny(unreachable_patterns)]
            fn decode_fields(input: &mut Decoder<'_>) -> Result<Self, CodecError> {
                let kind = stringify!($type);
                let Some((number, wire)) = input.key()? else { return Err(CodecError::Missing { kind }) };
                let mut input = input.message(wire)?;
                match number {
                    $($number => {
                        $($(let mut $field = None;)*)?
                        $($(let mut $tuple = None;)*)?
                        while let Some((number, wire)) = input.key()? {
                            match number {
                                $($($n => Field::read_field(&mut $field, wire, &mut input)?,)*)?
                                $($($tn => Field::read_field(&mut $tuple, wire, &mut input)?,)*)?
                                _ => input.skip(number, wire)?,
                            }
                        }
                        Ok(Self::$variant
                            $({ $($field: Field::finish($field)?),* })?
                            $(( $(Field::finish($tuple)?),* ))?)
                    })*
                    number => Err(CodecError::VariantUnknown { kind, number: number.into() }),
                }
            }
        }

        impl Variants for $type {
            const NAMES: &'static [&'static str] = &[$(stringify!($variant)),*];

            fn variant_name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => stringify!($variant),)*
                }
            }
        }
    )*};
}

/// Enums without fields, written as a number; 0 is the default.
macro_rules! words {
    ($($type:ident { $($number:literal: $variant:ident),* $(,)? })*) => {$(
        impl Value for $type {
            fn write(&self, field: u32, out: &mut Encoder) {
                let number = match self {
                    $(Self::$variant => $number,)*
                };
                out.number(field, number);
            }

            fn write_unless_default(&self, field: u32, out: &mut Encoder) {
                if *self != Self::default() {
                    self.write(field, out);
                }
            }

            #[deny(unreachable_patterns)]
            fn read(wire: WireType, input: &mut Decoder<'_>) -> Result<Self, CodecError> {
                match input.number(wire)? {
                    $($number => Ok(Self::$variant),)*
                    number => Err(CodecError::VariantUnknown { kind: stringify!($type), number }),
                }
            }

            fn absent() -> Result<Self, CodecError> {
                Ok(Self::default())
            }
        }
    )*};
}

pub(super) use {record, shared, variants, words};
