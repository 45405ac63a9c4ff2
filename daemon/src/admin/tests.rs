use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::socket::{Bound, SocketError};
use super::*;
use crate::health::STALE_AFTER;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn desk() -> Arc<dyn Answer> {
    Arc::new(Desk { account: Some(watch::channel(Arc::new(Account { node: "a".into(), ..Account::default() })).1) })
}

fn health() -> Arc<ProxyHealth> {
    Arc::new(ProxyHealth::new(STALE_AFTER, false))
}

#[tokio::test]
async fn what_is_asked_is_answered_and_nothing_is_left() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run/sheave.sock");
    let cancel = CancellationToken::new();
    let running = tokio::spawn(serve(path.clone(), desk(), health(), cancel.clone()));
    while !path.exists() {
        tokio::task::yield_now().await;
    }
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let told: Vips = ask(&path, VIPS).await.unwrap();
    assert_eq!((told.node.as_str(), told.vips, told.note), ("a", vec![], None));
    let refused = ask::<Vips>(&path, "/v1/nothing").await.unwrap_err().to_string();
    assert!(refused.contains("404 Not Found to /v1/nothing: 404 page not found; there is /v1/vips"), "{refused}");
    cancel.cancel();
    running.await.unwrap();
    assert!(!path.exists());
    assert!(matches!(ask::<Vips>(&path, VIPS).await, Err(AskError::Nobody { .. })));
}

#[tokio::test]
async fn it_is_only_read() {
    let body: &[u8] = &[];
    for (method, status) in [(Method::GET, 200), (Method::HEAD, 200), (Method::PUT, 405), (Method::DELETE, 405)] {
        let reply = desk().answer(&Request { method: &method, path: VIPS, body, peer: None });
        assert_eq!(reply.status().as_u16(), status, "{method}");
    }
}

#[tokio::test]
async fn a_dead_daemons_socket_is_replaced_and_a_living_ones_never() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("sheave.sock");
    // Whoever is killed leaves its socket.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let (bound, listener) = Bound::at(&path).unwrap();
    assert!(matches!(Bound::at(&path), Err(SocketError::Lives { .. })));
    drop(listener);
    let (successor, _listener) = Bound::at(&path).unwrap();
    drop(bound);
    assert!(path.exists(), "it is the successor's");
    drop(successor);
    assert!(!path.exists());
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "nothing is left");
}

#[tokio::test]
async fn what_is_no_socket_stays_and_a_directory_open_to_others_is_not_used() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("sheave.sock");
    fs::write(&path, "somebody's").unwrap();
    let refused = Bound::at(&path).unwrap_err().to_string();
    assert!(refused.ends_with("sheave.sock is there and is no socket"), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
    fs::remove_file(&path).unwrap();
    symlink(home.path().join("elsewhere"), &path).unwrap();
    assert!(matches!(Bound::at(&path), Err(SocketError::Foreign { .. })));

    let open = home.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let refused = Bound::at(&open.join("sheave.sock")).unwrap_err().to_string();
    assert!(refused.contains("has mode 777; it has to be ours, and writable for us alone"), "{refused}");
    let nowhere = Bound::at(&home.path().join("no/such/sheave.sock")).unwrap_err();
    assert!(matches!(nowhere, SocketError::Directory { .. }));
}

#[tokio::test]
async fn a_socket_that_cannot_be_had_is_a_problem_until_it_can() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("sheave.sock");
    let (bound, listener) = Bound::at(&path).unwrap();
    let health = health();
    let cancel = CancellationToken::new();
    let running = tokio::spawn(serve(path.clone(), desk(), health.clone(), cancel.clone()));
    let problem = |health: &ProxyHealth| health.look().problems.first().cloned();
    while problem(&health).is_none() {
        tokio::task::yield_now().await;
    }
    assert!(problem(&health).is_some_and(|text| text.contains("another daemon answers at")));
    drop((bound, listener));
    while problem(&health).is_some() {
        sleep(Duration::from_millis(5)).await;
    }
    assert!(ask::<Vips>(&path, VIPS).await.is_ok());
    cancel.cancel();
    running.await.unwrap();
}
