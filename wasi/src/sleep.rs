//! Sleeping. Compiled programs sleep by calling `poll_oneoff` with one subscription, to a clock, with a time relative to now.
//!
//! A context can allow wasmtime-wasi to block the thread (`allow_blocking_current_thread`). This is meant for files, but then
//! wasmtime-wasi's own function also blocks the thread to sleep. So this one does not call it.

/// Defines `sleep` for the types of one version.
macro_rules! define_sleep {
    ($types:path) => {
        use $types as types;

        /// Does what `poll_oneoff` does, if it is called to sleep, and returns its errno. Otherwise returns `None`.
        async fn sleep(
            memory: &mut GuestMemory<'_>,
            [subscriptions, events, count, count_of_events]: [i32; 4],
        ) -> Result<Option<i32>> {
            use types::{Clockid, Errno, Event, EventFdReadwrite, Eventrwflags, Eventtype, Size};
            use types::{Subclockflags, Subscription, SubscriptionU};
            let at = |address: i32| address.cast_unsigned();
            if count != 1 {
                return Ok(None);
            }
            // wasmtime-wasi reports what cannot be read.
            let Ok(subscription) = memory.read(GuestPtr::<Subscription>::new(at(subscriptions))) else {
                return Ok(None);
            };
            let SubscriptionU::Clock(clock) = subscription.u else { return Ok(None) };
            if clock.flags.contains(Subclockflags::SUBSCRIPTION_CLOCK_ABSTIME) {
                return Ok(None);
            }
            if !matches!(clock.id, Clockid::Monotonic | Clockid::Realtime) {
                return Ok(Some(Errno::Inval as i32));
            }
            match clock.timeout {
                0 => $crate::turn::give_way().await,
                timeout => tokio::time::sleep(Duration::from_nanos(timeout)).await,
            }
            let event = Event {
                userdata: subscription.userdata,
                error: Errno::Success,
                type_: Eventtype::Clock,
                fd_readwrite: EventFdReadwrite { nbytes: 0, flags: Eventrwflags::empty() },
            };
            memory.write(GuestPtr::new(at(events)), event)?;
            memory.write(GuestPtr::<Size>::new(at(count_of_events)), 1)?;
            Ok(Some(Errno::Success as i32))
        }
    };
}
pub(crate) use define_sleep;
