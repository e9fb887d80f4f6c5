//! With the hook, pool and sandbox work.

fn main() -> std::io::Result<()> {
    smallhands::init(embedder::hook::parts);
    embedder::hook::main()
}
