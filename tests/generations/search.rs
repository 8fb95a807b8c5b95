//! Visits every state that can be reached, each once, the nearest first; so what it finds is found by the fewest steps.
//!
//! A state that was visited is known by 128 bits of its hash: of 10 million states, two have the same ones with a
//! probability of one in 10^24. How a state was reached is kept as numbers of steps, and told by going there again.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::Number;
use super::world::{Bounds, Laws, Step, Violation, World};

/// What a search has found.
pub(crate) struct Found {
    pub(crate) states: usize,
    /// Steps to the farthest state.
    pub(crate) depth: usize,
    /// The greatest count that a client was told.
    pub(crate) greatest_told: Number,
    pub(crate) violation: Option<(Violation, Vec<Step>)>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} states, {} steps deep", self.states, self.depth)?;
        let Some((violation, steps)) = &self.violation else { return Ok(()) };
        write!(f, ": {violation:?} by")?;
        steps.iter().try_for_each(|step| write!(f, "\n    {step:?}"))
    }
}

/// How a state was reached: from which one, and by which of its steps.
type Origin = (u32, u16);

/// All states within these bounds.
pub(crate) fn search(bounds: Bounds, laws: Laws) -> Found {
    let first = World::new(bounds);
    let mut seen = HashSet::from([fingerprint(&first)]);
    let mut origins: Vec<Origin> = vec![(0, 0)];
    let mut frontier = vec![(first, 0)];
    let mut found = Found { states: 1, depth: 0, greatest_told: 0, violation: None };
    while !frontier.is_empty() {
        let mut next = Vec::new();
        for (world, at) in &frontier {
            for (number, step) in (0..).zip(world.steps(laws)) {
                match world.after(laws, step) {
                    Ok(world) => {
                        if seen.insert(fingerprint(&world)) {
                            found.greatest_told = found.greatest_told.max(world.greatest_told());
                            next.push((world, origins.len() as u32));
                            origins.push((*at, number));
                        }
                    }
                    Err(violation) => {
                        let mut steps = steps_to(*at, &origins, bounds, laws);
                        steps.push(step);
                        found.violation = Some((violation, steps));
                        found.states = origins.len();
                        return found;
                    }
                }
            }
        }
        found.depth += usize::from(!next.is_empty());
        found.states = origins.len();
        frontier = next;
    }
    found
}

fn fingerprint(world: &World) -> u128 {
    let half = |which: u8| {
        let mut hasher = DefaultHasher::new();
        (which, world).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

fn steps_to(mut at: u32, origins: &[Origin], bounds: Bounds, laws: Laws) -> Vec<Step> {
    let mut numbers = Vec::new();
    while at != 0 {
        let (from, number) = origins[at as usize];
        numbers.push(number);
        at = from;
    }
    let mut world = World::new(bounds);
    let mut steps = Vec::new();
    for number in numbers.into_iter().rev() {
        let step = world.steps(laws)[usize::from(number)];
        world = world.after(laws, step).expect("it was reached by this step");
        steps.push(step);
    }
    steps
}
