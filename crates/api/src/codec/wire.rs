//! How single values look in bytes.
//! Knows nothing about any one type of the domain, but templates, which snapshots write once and refer to by number.

use super::{CodecError, Record};
use domain::config::Blob;
use domain::id::Name;
use domain::small_map::SmallMap;
use domain::spec::{Labels, Template};
use imbl::OrdMap;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Bytes in the making.
#[derive(Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
    templates: Option<TemplateTable>,
}

/// The templates of a snapshot, numbered as they are met.
#[derive(Debug, Default)]
struct TemplateTable {
    /// Spares a second look at a template that many pods share. Every template outlives the encoder, so an address
    /// stands for one content.
    by_address: BTreeMap<usize, u64>,
    by_content: BTreeMap<Vec<u8>, u64>,
}

impl TemplateTable {
    fn number(&mut self, template: &Arc<Template>) -> u64 {
        let address = Arc::as_ptr(template) as usize;
        if let Some(number) = self.by_address.get(&address) {
            return *number;
        }
        // By content as well: which pods share an allocation differs between servers, and the bytes must not.
        let next = self.by_content.len() as u64;
        let number = *self.by_content.entry(super::encode(&**template)).or_insert(next);
        self.by_address.insert(address, number);
        number
    }
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Begins again, with the room that there is.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// A byte that is no field.
    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// From here on, templates are written as numbers.
    pub(super) fn begin_templates(&mut self) {
        self.templates = Some(TemplateTable::default());
    }

    /// The templates that were written as numbers, encoded, in the order of these.
    pub(super) fn end_templates(&mut self) -> Vec<Vec<u8>> {
        let table = self.templates.take().unwrap_or_default();
        let mut numbered: Vec<_> = table.by_content.into_iter().map(|(bytes, number)| (number, bytes)).collect();
        numbered.sort_unstable_by_key(|(number, _)| *number);
        numbered.into_iter().map(|(_, bytes)| bytes).collect()
    }

    /// A field that is a number.
    pub(super) fn number(&mut self, field: u32, value: u64) {
        encode_key(field, WireType::Varint, &mut self.bytes);
        encode_varint(value, &mut self.bytes);
    }

    /// A field that is bytes.
    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        encode_key(field, WireType::LengthDelimited, &mut self.bytes);
        encode_varint(value.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(value);
    }

    /// A field that has fields; says whether it has any that differ from their default.
    pub(super) fn message(&mut self, field: u32, fields: impl FnOnce(&mut Self)) -> bool {
        encode_key(field, WireType::LengthDelimited, &mut self.bytes);
        // Nearly every length fits one byte: reserve that one, and make room only for the others.
        let length_at = self.bytes.len();
        self.bytes.push(0);
        let begin = self.bytes.len();
        fields(self);
        let length = self.bytes.len() - begin;
        match u8::try_from(length) {
            Ok(byte) if byte < 0x80 => self.bytes[length_at] = byte,
            _ => {
                let mut varint = Vec::with_capacity(10);
                encode_varint(length as u64, &mut varint);
                self.bytes.splice(length_at..begin, varint);
            }
        }
        0 < length
    }

    /// As [`Self::message`], and nothing at all if every field holds its default.
    fn message_unless_empty(&mut self, field: u32, fields: impl FnOnce(&mut Self)) {
        let begin = self.bytes.len();
        if !self.message(field, fields) {
            self.bytes.truncate(begin);
        }
    }
}

/// The texts that were met so far. In what holds much, most come again: the names of namespaces, nodes and labels with
/// every pod, and a pod's own in what speaks of it.
#[derive(Debug, Default)]
pub(super) struct Texts(RefCell<HashSet<Arc<str>>>);

impl Texts {
    /// A text, the same allocation each time.
    fn share(&self, text: &str) -> Arc<str> {
        let mut known = self.0.borrow_mut();
        if let Some(found) = known.get(text) {
            return Arc::clone(found);
        }
        let new: Arc<str> = Arc::from(text);
        known.insert(Arc::clone(&new));
        new
    }
}

/// Bytes being read.
#[derive(Debug)]
pub struct Decoder<'a> {
    input: &'a [u8],
    templates: &'a [Arc<Template>],
    /// Where it is worth it.
    texts: Option<&'a Texts>,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self { input, templates: &[], texts: None }
    }

    /// The same bytes from the same place; names that are equal are one.
    pub(super) fn with_texts<'b>(&self, texts: &'b Texts) -> Decoder<'b>
    where
        'a: 'b,
    {
        Decoder { input: self.input, templates: self.templates, texts: Some(texts) }
    }

    /// The same bytes from the same place, with the templates that their numbers stand for.
    pub(super) fn with_templates<'b>(&self, templates: &'b [Arc<Template>]) -> Decoder<'b>
    where
        'a: 'b,
    {
        Decoder { input: self.input, templates, texts: self.texts }
    }

    /// The next field's number and wire type, or `None` at the end.
    pub(super) fn key(&mut self) -> Result<Option<(u32, WireType)>, CodecError> {
        if self.input.is_empty() {
            return Ok(None);
        }
        Ok(Some(decode_key(&mut self.input)?))
    }

    pub(super) fn skip(&mut self, field: u32, wire: WireType) -> Result<(), CodecError> {
        Ok(skip_field(wire, field, &mut self.input, DecodeContext::default())?)
    }

    pub(super) fn number(&mut self, wire: WireType) -> Result<u64, CodecError> {
        expect_wire(WireType::Varint, wire)?;
        Ok(decode_varint(&mut self.input)?)
    }

    pub(super) fn bytes(&mut self, wire: WireType) -> Result<&'a [u8], CodecError> {
        expect_wire(WireType::LengthDelimited, wire)?;
        let length = usize::try_from(decode_varint(&mut self.input)?).map_err(|_| CodecError::CutShort)?;
        let (bytes, rest) = self.input.split_at_checked(length).ok_or(CodecError::CutShort)?;
        self.input = rest;
        Ok(bytes)
    }

    fn text(&mut self, wire: WireType) -> Result<&'a str, CodecError> {
        std::str::from_utf8(self.bytes(wire)?).map_err(|_| CodecError::NotUtf8)
    }

    /// A text that may be shared with others; `None` for an empty one.
    fn name(&mut self, wire: WireType) -> Result<Option<Arc<str>>, CodecError> {
        let text = self.text(wire)?;
        let share = || self.texts.map_or_else(|| Arc::from(text), |texts| texts.share(text));
        Ok((!text.is_empty()).then(share))
    }

    pub(super) fn message(&mut self, wire: WireType) -> Result<Self, CodecError> {
        Ok(Self { input: self.bytes(wire)?, templates: self.templates, texts: self.texts })
    }
}

fn expect_wire(expected: WireType, actual: WireType) -> Result<(), CodecError> {
    if expected == actual {
        return Ok(());
    }
    Err(CodecError::WireType { expected: expected as u8, actual: actual as u8 })
}

/// One value of a field.
pub(super) trait Value: Sized {
    /// Writes it, whatever it is.
    fn write(&self, field: u32, out: &mut Encoder);

    /// Writes it, unless it is what [`Self::absent`] gives.
    fn write_unless_default(&self, field: u32, out: &mut Encoder);

    /// Reads it.
    fn read(wire: WireType, input: &mut Decoder<'_>) -> Result<Self, CodecError>;

    /// What it is when it was not written.
    fn absent() -> Result<Self, CodecError>;
}

/// A field: one value, perhaps one, or many.
pub(super) trait Field: Sized {
    fn write_field(&self, field: u32, out: &mut Encoder);

    /// Takes one more occurrence of the field.
    fn read_field(slot: &mut Option<Self>, wire: WireType, input: &mut Decoder<'_>) -> Result<(), CodecError>;

    /// What all occurrences amount to.
    fn finish(slot: Option<Self>) -> Result<Self, CodecError>;
}

impl<T: Value> Field for T {
    fn write_field(&self, field: u32, out: &mut Encoder) {
        self.write_unless_default(field, out);
    }

    fn read_field(slot: &mut Option<Self>, wire: WireType, input: &mut Decoder<'_>) -> Result<(), CodecError> {
        *slot = Some(T::read(wire, input)?);
        Ok(())
    }

    fn finish(slot: Option<Self>) -> Result<Self, CodecError> {
        slot.map_or_else(T::absent, Ok)
    }
}

impl<T: Value> Field for Option<T> {
    fn write_field(&self, field: u32, out: &mut Encoder) {
        if let Some(value) = self {
            value.write(field, out);
        }
    }

    fn read_field(slot: &mut Option<Self>, wire: WireType, input: &mut Decoder<'_>) -> Result<(), CodecError> {
        *slot = Some(Some(T::read(wire, input)?));
        Ok(())
    }

    fn finish(slot: Option<Self>) -> Result<Self, CodecError> {
        Ok(slot.flatten())
    }
}

impl<T: Value> Field for Vec<T> {
    fn write_field(&self, field: u32, out: &mut Encoder) {
        for value in self {
            value.write(field, out);
        }
    }

    fn read_field(slot: &mut Option<Self>, wire: WireType, input: &mut Decoder<'_>) -> Result<(), CodecError> {
        let values = slot.get_or_insert_default();
        if values.is_empty() {
            // Most lists are of one, and many are kept for long.
            values.reserve_exact(1);
        }
        values.push(T::read(wire, input)?);
        Ok(())
    }

    fn finish(slot: Option<Self>) -> Result<Self, CodecError> {
        Ok(slot.unwrap_or_default())
    }
}

/// Writes a map's entry as protobuf does: a message with the key as field 1 and the value as field 2.
fn write_entry<K: Value, V: Value>(key: &K, value: &V, field: u32, out: &mut Encoder) {
    out.message(field, |out| {
        key.write_field(1, out);
        value.write_field(2, out);
    });
}

macro_rules! maps {
    ($($map:ident: $($bound:ident)*;)*) => {$(
        impl<K: Value + Ord $(+ $bound)*, V: Value $(+ $bound)*> Field for $map<K, V> {
            fn write_field(&self, field: u32, out: &mut Encoder) {
                for (key, value) in self {
                    write_entry(key, value, field, out);
                }
            }

            fn read_field(slot: &mut Option<Self>, wire: WireType, input: &mut Decoder<'_>) -> Result<(), CodecError> {
                let (key, value) = <(K, V)>::read(wire, input)?;
                slot.get_or_insert_default().insert(key, value);
                Ok(())
            }

            fn finish(slot: Option<Self>) -> Result<Self, CodecError> {
                Ok(slot.unwrap_or_default())
            }
        }
    )*};
}

maps! {
    BTreeMap:;
    OrdMap: Clone;
    SmallMap:;
}

impl Field for Labels {
    fn write_field(&self, field: u32, out: &mut Encoder) {
        (**self).write_field(field, out);
    }

    fn read_field(slot: &mut Option<Self>, wire: WireType, input: &mut Decoder<'_>) -> Result<(), CodecError> {
        let (key, value) = <(Name, Name)>::read(wire, input)?;
        slot.get_or_insert_default().insert(key, value);
        Ok(())
    }

    fn finish(slot: Option<Self>) -> Result<Self, CodecError> {
        Ok(slot.unwrap_or_default())
    }
}

impl<A: Value, B: Value> Record for (A, B) {
    fn encode_fields(&self, out: &mut Encoder) {
        self.0.write_field(1, out);
        self.1.write_field(2, out);
    }

    fn decode_fields(input: &mut Decoder<'_>) -> Result<Self, CodecError> {
        let (mut first, mut second) = (None, None);
        while let Some((number, wire)) = input.key()? {
            match number {
                1 => Field::read_field(&mut first, wire, input)?,
                2 => Field::read_field(&mut second, wire, input)?,
                _ => input.skip(number, wire)?,
            }
        }
        Ok((Field::finish(first)?, Field::finish(second)?))
    }
}

impl<T: Record> Value for T {
    fn write(&self, field: u32, out: &mut Encoder) {
        out.message(field, |out| self.encode_fields(out));
    }

    fn write_unless_default(&self, field: u32, out: &mut Encoder) {
        out.message_unless_empty(field, |out| self.encode_fields(out));
    }

    fn read(wire: WireType, input: &mut Decoder<'_>) -> Result<Self, CodecError> {
        T::decode_fields(&mut input.message(wire)?)
    }

    fn absent() -> Result<Self, CodecError> {
        super::decode(&[])
    }
}

/// Values that are a varint: how to make one, and how to read one.
macro_rules! numbers {
    ($($type:ty: |$value:ident| $to:expr, |$number:ident| $from:expr;)*) => {$(
        impl Value for $type {
            fn write(&self, field: u32, out: &mut Encoder) {
                let $value = *self;
                out.number(field, $to);
            }

            fn write_unless_default(&self, field: u32, out: &mut Encoder) {
                if *self != Self::default() {
                    self.write(field, out);
                }
            }

            fn read(wire: WireType, input: &mut Decoder<'_>) -> Result<Self, CodecError> {
                let $number = input.number(wire)?;
                $from
            }

            fn absent() -> Result<Self, CodecError> {
                Ok(Self::default())
            }
        }
    )*};
}

/// Values that are a text.
macro_rules! texts {
    ($read:ident: $($type:ty),* $(,)?) => {$(
        impl Value for $type {
            fn write(&self, field: u32, out: &mut Encoder) {
                out.bytes(field, self.as_str().as_bytes());
            }

            fn write_unless_default(&self, field: u32, out: &mut Encoder) {
                if !self.as_str().is_empty() {
                    self.write(field, out);
                }
            }

            fn read(wire: WireType, input: &mut Decoder<'_>) -> Result<Self, CodecError> {
                input.$read(wire).map(Self::from)
            }

            fn absent() -> Result<Self, CodecError> {
                Ok(Self::default())
            }
        }
    )*};
}

/// Protobuf's zigzag: small numbers of either sign are short.
const fn zigzag(value: i32) -> u64 {
    ((value << 1) ^ (value >> 31)) as u32 as u64
}

const fn unzigzag(number: u32) -> i32 {
    (number >> 1) as i32 ^ -((number & 1) as i32)
}

pub(super) fn narrow(number: u64) -> Result<u32, CodecError> {
    u32::try_from(number).map_err(|_| CodecError::NumberTooLarge(number))
}

mod ids {
    use super::{CodecError, Decoder, Encoder, Value, WireType, narrow, unzigzag, zigzag};
    use domain::id::{
        BootId, ClassName, Fence, Generation, Incarnation, MachineId, Name, NodeName, Ordinal, RequestId, Revision,
        RevisionName, ServerId, Uid, VolumeName,
    };

    texts! { text: String }
    texts! { name: Name, NodeName, VolumeName, ClassName, BootId, MachineId, RequestId, RevisionName }

    numbers! {
        u64: |value| value, |number| Ok(number);
        u32: |value| u64::from(value), |number| narrow(number);
        i32: |value| zigzag(value), |number| narrow(number).map(unzigzag);
        bool: |value| u64::from(value), |number| Ok(number != 0);
        Revision: |value| value.0, |number| Ok(Self(number));
        Uid: |value| value.0, |number| Ok(Self(number));
        ServerId: |value| value.0, |number| Ok(Self(number));
        Generation: |value| value.0, |number| Ok(Self(number));
        Incarnation: |value| value.0, |number| Ok(Self(number));
        Fence: |value| value.0, |number| Ok(Self(number));
        Ordinal: |value| u64::from(value.0), |number| narrow(number).map(Self);
    }
}

impl Value for Blob {
    fn write(&self, field: u32, out: &mut Encoder) {
        out.bytes(field, &self.0);
    }

    fn write_unless_default(&self, field: u32, out: &mut Encoder) {
        if !self.0.is_empty() {
            self.write(field, out);
        }
    }

    fn read(wire: WireType, input: &mut Decoder<'_>) -> Result<Self, CodecError> {
        input.bytes(wire).map(|bytes| Self(bytes.into()))
    }

    fn absent() -> Result<Self, CodecError> {
        Ok(Self::default())
    }
}

impl Value for Arc<Template> {
    fn write(&self, field: u32, out: &mut Encoder) {
        match &mut out.templates {
            Some(table) => {
                let number = table.number(self);
                out.number(field, number);
            }
            None => Value::write(&**self, field, out),
        }
    }

    fn write_unless_default(&self, field: u32, out: &mut Encoder) {
        match &out.templates {
            Some(_) => self.write(field, out),
            None => (**self).write_unless_default(field, out),
        }
    }

    fn read(wire: WireType, input: &mut Decoder<'_>) -> Result<Self, CodecError> {
        if wire == WireType::LengthDelimited {
            return Template::read(wire, input).map(Arc::new);
        }
        let number = input.number(wire)?;
        let found = usize::try_from(number).ok().and_then(|at| input.templates.get(at));
        found.cloned().ok_or(CodecError::TemplateUnknown(number))
    }

    fn absent() -> Result<Self, CodecError> {
        Ok(Self::default())
    }
}
