//! From a text to the trees of its documents, and the parser's complaints in words for whoever wrote the text.

use serde_saphyr::granit_parser::ErrorKind;
use serde_saphyr::localizer::ExternalMessageSource;

use super::ConfigError;
use super::tree::Tree;

/// Line and column, from 1.
pub(super) type Place = (u64, u64);

/// The documents of a text.
///
/// # Errors
/// It is not YAML, or more of it than any configuration has.
pub(super) fn trees(text: &str) -> Result<Vec<Tree>, ConfigError> {
    serde_saphyr::from_str_multiple_with_options(text, options()).map_err(|error| {
        let place = error.location().map(|location| (location.line(), location.column()));
        let error = error.without_snippet();
        if is_endless(error) {
            return ConfigError::Endless(place);
        }
        if let Some(tab) = place.and_then(|place| indenting_tab(text, place, error)) {
            return ConfigError::Yaml { place: Some(tab), reason: "a tab cannot indent YAML, use spaces".to_owned() };
        }
        let reason = plainly(error).map_or_else(|| error.to_string(), str::to_owned);
        // The parser may end with the place as well.
        let reason = reason.strip_suffix(&at(place)).unwrap_or(&reason).to_owned();
        ConfigError::Yaml { place, reason }
    })
}

pub(super) fn at(place: Option<Place>) -> String {
    place.map_or_else(String::new, |(line, column)| format!(" at line {line}, column {column}"))
}

/// The last of two equal keys counts, as in Kubernetes' lenient decoding; in a [`Tree`] both are seen. `010` is 8, as in the YAML 1.1 that
/// Kubernetes reads (`resolve` of sigs.k8s.io/yaml/goyaml.v2).
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins,
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

/// The parser's bounds were met, perhaps by way of an alias.
fn is_endless(error: &serde_saphyr::Error) -> bool {
    match error {
        serde_saphyr::Error::Budget { .. } => true,
        serde_saphyr::Error::AliasError { error, .. } => is_endless(error),
        _ => false,
    }
}

fn kind(error: &serde_saphyr::Error) -> Option<&ErrorKind> {
    match error {
        serde_saphyr::Error::ExternalMessage { source, .. } => match &**source {
            ExternalMessageSource::Parser(error) => Some(error.kind()),
            _ => None,
        },
        _ => None,
    }
}

/// The tab in an indentation that a mistake comes of: one before what stands at its place, or one in the lines after it that the
/// parser took for part of a value.
fn indenting_tab(text: &str, (line, column): Place, error: &serde_saphyr::Error) -> Option<Place> {
    let first = usize::try_from(line).ok()?.checked_sub(1)?;
    let goes_on = matches!(kind(error), Some(ErrorKind::TabInPlainScalar | ErrorKind::TabAtBlockScalarStart));
    let lines = if goes_on { usize::MAX } else { 1 };
    text.lines().enumerate().skip(first).take(lines).find_map(|(number, text)| {
        let indentation = &text[..text.len() - text.trim_start().len()];
        // Further on in its line a mistake has another reason.
        let before = number > first || column <= indentation.len() as u64 + 1;
        let tab = indentation.find('\t').filter(|_| before)?;
        Some((number as u64 + 1, tab as u64 + 1))
    })
}

/// What the commonest complaints mean, for people who know no grammar of YAML.
fn plainly(error: &serde_saphyr::Error) -> Option<&'static str> {
    match error {
        // A tree takes anything but as the name of a field.
        serde_saphyr::Error::Unexpected { .. } => return Some("the name of a field must be a word"),
        serde_saphyr::Error::NonFiniteFloat { .. } => return Some("not a finite number"),
        _ => {}
    }
    Some(match kind(error)? {
        ErrorKind::MappingValueNotAllowed => {
            "there is a second ': ' where one value ends, or the indentation is wrong; a value with ': ' in it needs quotes"
        }
        ErrorKind::ExpectedDocumentStart | ErrorKind::ExpectedBlockMappingKey | ErrorKind::InvalidIndentation => {
            "the indentation does not fit that of the lines before"
        }
        ErrorKind::BlockSequenceEntryNotAllowed | ErrorKind::ExpectedBlockSequenceEntry => {
            "no item of a list can stand here, or the indentation is wrong"
        }
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => "a field without ':' after its name",
        ErrorKind::UnexpectedCharacter { .. } => "no value begins with this character: put it in quotes",
        ErrorKind::UnknownAnchor => "an alias (*) of which there is no anchor (&)",
        _ => return None,
    })
}
