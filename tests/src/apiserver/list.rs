//! Lists: which version they show, and pages.

use std::sync::Arc;

use serde_json::{Value, json};

use super::body::Body;
use super::fault::Effect;
use super::resource::Resource;
use super::route::Query;
use super::selector::Selector;
use super::status::Status;
use super::store::{Objects, Store, Stored, Table, TableId};

/// A list, or a page of it.
#[derive(Debug)]
pub(super) struct Page {
    objects: Vec<Arc<Stored>>,
    version: u64,
    /// Token and number of what is left; the number is known only without selectors, as with the real server.
    more: Option<(Token, Option<usize>)>,
}

/// Where a paged list goes on. Clients must not look inside; ours reads `version:key`, the real one is base64 of JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    /// `None`: an inconsistent continuation, at whatever the state is then.
    version: Option<u64>,
    /// The last key that was delivered.
    after: String,
}

impl Token {
    fn parse(text: &str) -> Result<Self, Status> {
        let invalid = || Status::bad_request("continue key is not valid: it was not issued by this server");
        let (version, after) = text.split_once(':').ok_or_else(invalid)?;
        let version = if version == "latest" { None } else { Some(version.parse().map_err(|_| invalid())?) };
        Ok(Self { version, after: after.to_owned() })
    }

    fn text(&self) -> String {
        let version = self.version.map_or_else(|| "latest".to_owned(), |version| version.to_string());
        format!("{version}:{}", self.after)
    }
}

/// The version that a list shows, from its query.
fn version_asked(store: &Store, query: &Query) -> Result<u64, Status> {
    let (text, matching) = (query.get("resourceVersion"), query.get("resourceVersionMatch"));
    let current = store.revision();
    if !matching.is_empty() {
        let forbid = |why: &str| Err(Status::invalid_options("resourceVersionMatch", why));
        if !matches!(matching, "Exact" | "NotOlderThan") {
            return forbid("supported values: \"Exact\", \"NotOlderThan\"");
        }
        if text.is_empty() {
            return forbid("resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if matching == "Exact" && text == "0" {
            return forbid("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
    }
    if text.is_empty() {
        return Ok(current);
    }
    let version: u64 = text.parse().map_err(|_| Status::bad_request(format!("invalid resource version {text:?}")))?;
    if version > current {
        return Err(Status::too_large_version(version, current));
    }
    // A limited list at a version without a match is exact: the legacy rule of the API concepts page.
    let exact =
        matching == "Exact" || (matching.is_empty() && version > 0 && query.number("limit").is_some_and(|limit| limit > 0));
    Ok(if exact { version } else { current })
}

impl Page {
    /// Answers a list request from the store.
    pub(super) fn read(store: &Store, id: TableId, namespace: &str, query: &Query, effects: &[Effect]) -> Result<Self, Status> {
        let table = store.table(id);
        let selector = Selector::parse(&table.resource, query.get("labelSelector"), query.get("fieldSelector"))?;
        if !query.get("sendInitialEvents").is_empty() {
            return Err(Status::invalid_options("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        }
        let mut version = version_asked(store, query)?;
        let mut after = String::new();
        if !query.get("continue").is_empty() {
            if !query.get("resourceVersionMatch").is_empty() {
                let why = "resourceVersionMatch is forbidden when continue is provided";
                return Err(Status::invalid_options("resourceVersionMatch", why));
            }
            let token = Token::parse(query.get("continue"))?;
            version = token.version.unwrap_or(store.revision());
            if effects.contains(&Effect::ExpireContinue) || version < table.oldest() {
                return Err(Status::expired_continue(Token { version: None, ..token }.text()));
            }
            after = token.after;
        }
        if let Some(stale) = stale_version(effects).filter(|stale| *stale >= table.oldest() && *stale < version) {
            version = stale;
        }
        // Lists at version 0 come from the watch cache, which takes no notice of a limit.
        let cached = query.get("resourceVersion") == "0" && query.get("continue").is_empty();
        let limit =
            query.number("limit").filter(|limit| *limit > 0 && !cached).map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let unselective = query.get("labelSelector").is_empty() && query.get("fieldSelector").is_empty();
        let take = |objects: &Objects| Self::take(objects, namespace, &selector, version, &after, limit, unselective);
        if *table.subscribe().borrow() <= version {
            return Ok(take(&table.objects));
        }
        table.at(version).map(|objects| take(&objects)).ok_or_else(Status::expired_list)
    }

    fn take(
        objects: &Objects,
        namespace: &str,
        selector: &Selector,
        version: u64,
        after: &str,
        limit: Option<usize>,
        unselective: bool,
    ) -> Self {
        let rest = Table::range(objects, namespace, after).filter(|(key, _)| key.as_str() > after);
        let mut selected = rest.filter(|(_, object)| selector.matches(object));
        let mut page = Self { objects: Vec::new(), version, more: None };
        let Some(limit) = limit else {
            page.objects = selected.map(|(_, object)| object.clone()).collect();
            return page;
        };
        let mut last = None;
        for (key, object) in selected.by_ref().take(limit) {
            page.objects.push(object.clone());
            last = Some(key);
        }
        let left = selected.count();
        if let Some(last) = last.filter(|_| left > 0) {
            page.more = Some((Token { version: Some(version), after: last.as_str().to_owned() }, unselective.then_some(left)));
        }
        page
    }

    pub(super) fn into_body(self, resource: &Resource) -> Body {
        let mut metadata = json!({"resourceVersion": self.version.to_string()});
        if let Some((token, left)) = &self.more {
            metadata["continue"] = token.text().into();
            if let Some(left) = left {
                metadata["remainingItemCount"] = Value::from(*left);
            }
        }
        let kind = format!("\"kind\":\"{}List\",\"apiVersion\":\"{}\"", resource.kind, resource.api_version());
        Body::list(&format!("{{{kind},\"metadata\":{metadata},\"items\":["), self.objects)
    }
}

/// The version that a lagging cache shows.
pub(super) fn stale_version(effects: &[Effect]) -> Option<u64> {
    effects.iter().find_map(|effect| if let Effect::Stale { version } = effect { Some(*version) } else { None })
}
