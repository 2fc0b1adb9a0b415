//! The interfaces whose functions can wait, or are called in loops, in one table, and how the functions become async host
//! functions.
//!
//! Each function does what wasmtime-wasi's function of the same name does. wasmtime-wasi has a public trait for each interface,
//! with async functions, and public types that implement it. A type has the part of the context that it needs. Parameters and
//! results are those of the traits.

/// Passes all functions to a macro.
///
/// For each interface, the table has the part of the context that its functions need. Then it has the functions at the top and
/// those of each resource: the trait, and what each function takes. The last part says how resources are dropped.
///
/// - `waits`: the function is async.
/// - `asks`: it is async. Another thread may work on a file for it: see the module `asking`.
/// - `blocks`: it is async, and has no result.
/// - `now`: it is not async.
macro_rules! for_each_function {
    ($with:ident $($more:tt)*) => {
        $with! {
            $($more)*
            "wasi:io/poll@0.2.12" table {
                "" poll::Host { waits poll(pollables); }
                "[method]pollable." poll::HostPollable {
                    waits ready(this);
                    blocks block(this);
                }
                drops "pollable": poll::Pollable, now poll::HostPollable;
            }
            "wasi:io/streams@0.2.12" table {
                "[method]input-stream." streams::HostInputStream {
                    now read(this, len);
                    asks blocking_read(this, len);
                    now skip(this, len);
                    asks blocking_skip(this, len);
                    now subscribe(this);
                }
                "[method]output-stream." streams::HostOutputStream {
                    now check_write(this);
                    now write(this, contents);
                    asks blocking_write_and_flush(this, contents);
                    now flush(this);
                    asks blocking_flush(this);
                    now subscribe(this);
                    now write_zeroes(this, len);
                    asks blocking_write_zeroes_and_flush(this, len);
                    now splice(this, source, len);
                    asks blocking_splice(this, source, len);
                }
                drops "input-stream": streams::InputStream, waits streams::HostInputStream;
                drops "output-stream": streams::OutputStream, waits streams::HostOutputStream;
            }
            "wasi:filesystem/types@0.2.12" filesystem {
                "" types::Host { now filesystem_error_code(error); }
                "[method]descriptor." types::HostDescriptor {
                    now read_via_stream(this, offset);
                    now write_via_stream(this, offset);
                    now append_via_stream(this);
                    asks advise(this, offset, length, advice);
                    asks sync_data(this);
                    asks get_flags(this);
                    asks get_type(this);
                    asks set_size(this, size);
                    asks set_times(this, accessed, modified);
                    asks read(this, length, offset);
                    asks write(this, buffer, offset);
                    asks read_directory(this);
                    asks sync(this);
                    asks create_directory_at(this, path);
                    asks stat(this);
                    asks stat_at(this, flags, path);
                    asks set_times_at(this, flags, path, accessed, modified);
                    asks link_at(this, flags, old_path, new_descriptor, new_path);
                    asks open_at(this, path_flags, path, open_flags, flags);
                    asks readlink_at(this, path);
                    asks remove_directory_at(this, path);
                    asks rename_at(this, old_path, new_descriptor, new_path);
                    asks symlink_at(this, old_path, new_path);
                    asks unlink_file_at(this, path);
                    asks is_same_object(this, other);
                    asks metadata_hash(this);
                    asks metadata_hash_at(this, flags, path);
                }
                "[method]directory-entry-stream." types::HostDirectoryEntryStream {
                    asks read_directory_entry(this);
                }
                drops "descriptor": types::Descriptor, now types::HostDescriptor;
                drops "directory-entry-stream": types::DirectoryEntryStream, now types::HostDirectoryEntryStream;
            }
            "wasi:sockets/tcp@0.2.12" sockets {
                "[method]tcp-socket." tcp::HostTcpSocket {
                    waits start_bind(this, network, address);
                    now finish_bind(this);
                    now start_connect(this, network, address);
                    now finish_connect(this);
                    waits start_listen(this);
                    now finish_listen(this);
                    now accept(this);
                    now local_address(this);
                    now remote_address(this);
                    now is_listening(this);
                    now address_family(this);
                    now set_listen_backlog_size(this, value);
                    now keep_alive_enabled(this);
                    now set_keep_alive_enabled(this, value);
                    now keep_alive_idle_time(this);
                    now set_keep_alive_idle_time(this, value);
                    now keep_alive_interval(this);
                    now set_keep_alive_interval(this, value);
                    now keep_alive_count(this);
                    now set_keep_alive_count(this, value);
                    now hop_limit(this);
                    now set_hop_limit(this, value);
                    now receive_buffer_size(this);
                    now set_receive_buffer_size(this, value);
                    now send_buffer_size(this);
                    now set_send_buffer_size(this, value);
                    now subscribe(this);
                    now shutdown(this, how);
                }
                drops "tcp-socket": tcp::TcpSocket, now tcp::HostTcpSocket;
            }
            "wasi:sockets/udp@0.2.12" sockets {
                "[method]udp-socket." udp::HostUdpSocket {
                    waits start_bind(this, network, address);
                    now finish_bind(this);
                    waits stream(this, address);
                    now local_address(this);
                    now remote_address(this);
                    now address_family(this);
                    now unicast_hop_limit(this);
                    now set_unicast_hop_limit(this, value);
                    now receive_buffer_size(this);
                    now set_receive_buffer_size(this, value);
                    now send_buffer_size(this);
                    now set_send_buffer_size(this, value);
                    now subscribe(this);
                }
                "[method]incoming-datagram-stream." udp::HostIncomingDatagramStream {
                    now receive(this, max);
                    now subscribe(this);
                }
                "[method]outgoing-datagram-stream." udp::HostOutgoingDatagramStream {
                    now check_send(this);
                    now send(this, datagrams);
                    now subscribe(this);
                }
                drops "udp-socket": udp::UdpSocket, now udp::HostUdpSocket;
                drops "incoming-datagram-stream": udp::IncomingDatagramStream, now udp::HostIncomingDatagramStream;
                drops "outgoing-datagram-stream": udp::OutgoingDatagramStream, waits udp::HostOutgoingDatagramStream;
            }
            "wasi:sockets/udp-create-socket@0.2.12" sockets {
                "" udp_create_socket::Host { waits create_udp_socket(family); }
            }
            "wasi:sockets/ip-name-lookup@0.2.12" sockets {
                "" ip_name_lookup::Host { now resolve_addresses(network, name); }
                "[method]resolve-address-stream." ip_name_lookup::HostResolveAddressStream {
                    now resolve_next_address(this);
                    now subscribe(this);
                }
                drops "resolve-address-stream":
                    ip_name_lookup::ResolveAddressStream, now ip_name_lookup::HostResolveAddressStream;
            }
            "wasi:clocks/monotonic-clock@0.2.12" clocks {
                "" monotonic_clock::Host {
                    now now();
                    now resolution();
                    now subscribe_instant(when);
                    now subscribe_duration(when);
                }
            }
            "wasi:clocks/wall-clock@0.2.12" clocks {
                "" wall_clock::Host {
                    now now();
                    now resolution();
                }
            }
            "wasi:random/random@0.2.12" random {
                "" random_bytes::Host {
                    now get_random_bytes(len);
                    now get_random_u64();
                }
            }
        }
    };
}
pub(super) use for_each_function;

/// Defines the functions with async closures, whose futures need not be `Send`.
macro_rules! define {
    ($linker:ident: $($interface:literal $part:ident {
        $($prefix:literal $module:ident::$Trait:ident { $($kind:ident $name:ident($($arg:ident),*);)* })*
        $(drops $resource:literal: $Resource:ty, $drop:ident $drop_module:ident::$Drop:ident;)*
    })*) => {$({
        let mut instance = $linker.instance($interface)?;
        $($(instance.func_wrap_suspending(
            &$crate::p2::interfaces::name($prefix, stringify!($name)),
            async move |mut store: StoreContextMut<'_, T>, ($($arg,)*)| {
                $crate::p2::interfaces::run!($kind store, $part, $module::$Trait::$name($($arg),*))
            },
        )?;)*)*
        $(instance.resource_suspending(
            $resource,
            ResourceType::host::<$Resource>(),
            async move |mut store: StoreContextMut<'_, T>, rep: u32| {
                let resource = Resource::<$Resource>::new_own(rep);
                $crate::p2::interfaces::drop_in_turn!($drop store, $part, $drop_module::$Drop, resource)
            },
        )?;)*
    })*};
}
pub(super) use define;

/// Defines the functions with boxed futures, which are `Send`.
macro_rules! define_send {
    ($linker:ident: $($interface:literal $part:ident {
        $($prefix:literal $module:ident::$Trait:ident { $($kind:ident $name:ident($($arg:ident),*);)* })*
        $(drops $resource:literal: $Resource:ty, $drop:ident $drop_module:ident::$Drop:ident;)*
    })*) => {$({
        let mut instance = $linker.instance($interface)?;
        $($(instance.func_wrap_suspending_boxed(
            &$crate::p2::interfaces::name($prefix, stringify!($name)),
            move |mut store: StoreContextMut<'_, T>, ($($arg,)*)| {
                Box::new(async move {
                    $crate::p2::interfaces::run!($kind store, $part, $module::$Trait::$name($($arg),*))
                })
            },
        )?;)*)*
        $(instance.resource_suspending_boxed(
            $resource,
            ResourceType::host::<$Resource>(),
            move |mut store: StoreContextMut<'_, T>, rep: u32| {
                Box::new(async move {
                    let resource = Resource::<$Resource>::new_own(rep);
                    $crate::p2::interfaces::drop_in_turn!($drop store, $part, $drop_module::$Drop, resource)
                })
            },
        )?;)*
    })*};
}
pub(super) use define_send;

/// The body of one of the functions.
macro_rules! run {
    (waits $($call:tt)*) => { $crate::p2::interfaces::run!(in_turn $($call)*) };
    (asks $($call:tt)*) => { $crate::p2::interfaces::run!(in_turn_asking $($call)*) };
    (blocks $store:ident, $part:ident, $module:ident::$Trait:ident::$name:ident($($arg:ident),*)) => {
        $crate::turn::in_turn(async {
            let mut host = $crate::p2::view::$part($store.data_mut());
            $module::$Trait::$name(&mut host, $($arg),*).await
        })
        .await
    };
    (now $store:ident, $part:ident, $module:ident::$Trait:ident::$name:ident($($arg:ident),*)) => {
        $crate::turn::in_turn(async {
            let mut host = $crate::p2::view::$part($store.data_mut());
            let answer = $module::$Trait::$name(&mut host, $($arg),*);
            $crate::p2::answer::Answer::for_guest(answer, &mut host)
        })
        .await
    };
    ($in_turn:ident $store:ident, $part:ident, $module:ident::$Trait:ident::$name:ident($($arg:ident),*)) => {
        $crate::turn::$in_turn(async {
            let mut host = $crate::p2::view::$part($store.data_mut());
            let answer = $module::$Trait::$name(&mut host, $($arg),*).await;
            $crate::p2::answer::Answer::for_guest(answer, &mut host)
        })
        .await
    };
}
pub(super) use run;

/// Drops a resource.
macro_rules! drop_in_turn {
    (waits $store:ident, $part:ident, $module:ident::$Trait:ident, $resource:ident) => {
        $crate::turn::in_turn(async {
            $module::$Trait::drop(&mut $crate::p2::view::$part($store.data_mut()), $resource).await
        })
        .await
    };
    (now $store:ident, $part:ident, $module:ident::$Trait:ident, $resource:ident) => {
        $crate::turn::in_turn(async {
            $module::$Trait::drop(&mut $crate::p2::view::$part($store.data_mut()), $resource)
        })
        .await
    };
}
pub(super) use drop_in_turn;

/// The name of a function in its interface.
pub(super) fn name(prefix: &str, name: &str) -> String {
    format!("{prefix}{}", name.replace('_', "-"))
}
