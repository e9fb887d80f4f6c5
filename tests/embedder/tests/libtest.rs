//! A test binary has no `main` of its own to hook: pool and sandbox are typed errors.
#![allow(clippy::unwrap_used, reason = "tests")]

use embedder::hook;

#[tokio::test]
async fn a_pool_is_a_typed_error() {
    assert_eq!(hook::pool().await.unwrap_err().code, "exec.not_initialised");
}

#[tokio::test]
async fn a_sandbox_is_a_typed_error() {
    assert_eq!(
        hook::sandbox().await.unwrap_err().code,
        "sandbox.not_initialised"
    );
}
