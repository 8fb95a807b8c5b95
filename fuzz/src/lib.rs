//! The fuzz targets' bodies. They live with the product's tests, which replay the corpus.

#[path = "../../tests/corpus/targets.rs"]
mod targets;

/// Runs a target on one input.
///
/// # Panics
///
/// If the product does what it must not, or if there is no such target.
pub fn run(target: &str, data: &[u8]) {
    let known = targets::TARGETS.iter().find(|(name, _)| *name == target);
    let (_, run) = known.unwrap_or_else(|| panic!("no target {target}"));
    run(data);
}
