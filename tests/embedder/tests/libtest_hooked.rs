//! With a constructor as hook, pool and sandbox work inside `#[test]`.
#![allow(clippy::unwrap_used, reason = "tests")]

use embedder::hook;

#[ctor::ctor(unsafe)]
fn before_main() {
    smallhands::init(hook::parts);
}

#[tokio::test]
async fn a_pool_works() {
    hook::pool().await.unwrap();
}

#[tokio::test]
async fn a_sandbox_works() {
    hook::sandbox().await.unwrap();
}
