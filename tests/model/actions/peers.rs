//! What happens to the agent and to the endpoint.

use std::time::Duration;

use logferry_mock::Kind;

use super::Outcome;
use crate::world::World;

pub(super) fn freeze(world: &mut World) -> Outcome {
    world.set_frozen(true);
    Ok(())
}

pub(super) fn thaw(world: &mut World) -> Outcome {
    world.set_frozen(false);
    Ok(())
}

pub(super) fn kill_at_start(world: &mut World) -> Outcome {
    let after = Duration::from_millis(world.rng.u64(..40));
    world.kill_at_start(after);
    Ok(())
}

pub(super) fn kill_settled(world: &mut World) -> Outcome {
    world.settle()?;
    world.kill()
}

pub(super) fn cut_power(world: &mut World) -> Outcome {
    let is_torn = world.rng.bool();
    world.cut_power(is_torn)
}

pub(super) fn endpoint_down(world: &mut World) -> Outcome {
    world.set_endpoint(false);
    Ok(())
}

pub(super) fn endpoint_up(world: &mut World) -> Outcome {
    world.set_endpoint(true);
    Ok(())
}

pub(super) fn faults(world: &mut World) -> Outcome {
    let error = Kind::Error { code: "ServerBusy".to_owned(), status: None, retry_after: None };
    let all = [Kind::CutBefore, Kind::CutAfter, error, Kind::Delay { ms: 100 }];
    let kind = all[world.rng.usize(..all.len())].clone();
    let times = world.rng.u64(1..=3);
    world.say(format!("    {} {times} times", kind.name()));
    world.set_faults(vec![(kind, times)]);
    Ok(())
}
