//! What is told, as Events and in the log.

use crate::loadbalancer::allocator::{Event, Reason, Subject};
use crate::source::kube::{EventSubject, Remark, Severity};

use super::intake::Unannounced;

/// An Event in the allocator's words.
pub(super) fn remark(event: Event) -> Remark {
    let Event { about, reason, text } = event;
    let (api_version, kind, key, uid) = match about {
        Subject::Service(key, uid) => ("v1", "Service", key, uid),
        Subject::Pool(key, uid) => ("metallb.io/v1beta1", "IPAddressPool", key, uid),
    };
    let severity = if reason.is_warning() { Severity::Warning } else { Severity::Normal };
    let uid = (!uid.is_empty()).then(|| uid.to_string());
    let subject = EventSubject { api_version, kind, key, uid };
    Remark { subject, severity, reason: reason.as_str(), action: action(reason), note: text }
}

/// Nobody answers for the addresses of a Service.
pub(super) fn unannounced(Unannounced { service, pool }: &Unannounced) -> Remark {
    let uid = (!service.uid.is_empty()).then(|| service.uid.to_string());
    Remark {
        subject: EventSubject { api_version: "v1", kind: "Service", key: service.key.clone(), uid },
        severity: Severity::Warning,
        reason: "NotAdvertised",
        action: "Announce",
        note: format!(
            "no node announces its address: no L2Advertisement is for pool \"{pool}\" and this Service; make one that names the pool in \
             spec.ipAddressPools, or has none there"
        ),
    }
}

/// The same in the log.
pub(super) fn log(remark: &Remark) {
    let Remark { subject, severity, reason, note, .. } = remark;
    let (kind, key) = (subject.kind, &subject.key);
    match severity {
        Severity::Normal => tracing::info!(reason, "{kind} {key}: {note}"),
        Severity::Warning => tracing::warn!(reason, "{kind} {key}: {note}"),
    }
}

fn action(reason: Reason) -> &'static str {
    match reason {
        Reason::InvalidPool => "Validate",
        Reason::ClearAssignment => "Release",
        _ => "Allocate",
    }
}
