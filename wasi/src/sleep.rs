//! Sleeping: `poll_oneoff` with one subscription, to a clock, which is how every compiled program sleeps.
//!
//! Where a context allows wasmtime-wasi to block the thread, for the sake of files (`allow_blocking_current_thread`), its
//! function does so here, too. So the time passes before it is called, and it is told of none. After that the guest finds
//! its subscription as it was.

/// Defines both functions for the types of one version.
macro_rules! define_sleep {
    ($types:path) => {
        use $types as types;

        /// Waits if the only subscription is to a clock, for a time from now on, and takes that time out of it. Returns it as it
        /// was.
        async fn sleep(memory: &mut GuestMemory<'_>, subscriptions: i32, count: i32) -> Option<types::Subscription> {
            use types::{Subclockflags, Subscription, SubscriptionClock, SubscriptionU};
            if count != 1 {
                return None;
            }
            let at = GuestPtr::<Subscription>::new(subscriptions.cast_unsigned());
            let subscription = memory.read(at).ok()?;
            let SubscriptionU::Clock(clock) = subscription.u.clone() else { return None };
            if clock.timeout == 0 || clock.flags.contains(Subclockflags::SUBSCRIPTION_CLOCK_ABSTIME) {
                return None;
            }
            tokio::time::sleep(Duration::from_nanos(clock.timeout)).await;
            let over = SubscriptionU::Clock(SubscriptionClock { timeout: 0, ..clock });
            memory.write(at, Subscription { u: over, ..subscription }).ok()?;
            Some(subscription)
        }

        /// Gives the guest back what it had.
        fn restore(memory: &mut GuestMemory<'_>, subscriptions: i32, subscription: types::Subscription) {
            // It was read there, and written once.
            _ = memory.write(GuestPtr::new(subscriptions.cast_unsigned()), subscription);
        }
    };
}
pub(crate) use define_sleep;
