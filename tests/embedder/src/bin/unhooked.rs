//! Without the hook, pool and sandbox are typed errors.

fn main() -> std::io::Result<()> {
    embedder::hook::main()
}
