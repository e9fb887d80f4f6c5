//! One binary, because the helper is this very program: its `main` calls the hook first.

#![allow(clippy::unwrap_used)] // A test binary of its own: clippy sees no #[test] in it.

mod attacks;
mod caches;
mod copies;
mod egress;
mod environments;
mod exec;
mod files;
mod hostile;
mod hosts;
mod repos;
mod support;
mod transfer;
mod upstream;
mod zygote;

use libtest_mimic::{Arguments, Trial};

macro_rules! trials {
    ($($module:ident :: { $($name:ident),* $(,)? }),* $(,)?) => {
        vec![$($(Trial::test(concat!(stringify!($module), "::", stringify!($name)), || {
            $module::$name();
            Ok(())
        })),*),*]
    };
}

fn main() {
    smallhands_sandbox::linux::init();
    if hosts::other_role() {
        return;
    }
    let args = Arguments::from_args();
    let mut trials = trials![
        exec::{
            ends_as_it_ends,
            the_environment_is_made_not_inherited,
            a_dropped_call_is_cancelled,
            what_was_in_force_is_listed,
            a_server_is_spoken_to_over_its_streams,
            the_whole_has_limits_or_says_why_not,
        },
        copies::{
            nothing_but_the_commit_is_visible,
            odd_things_survive,
            odd_things_survive_without_an_overlay,
            submodules_are_shown_as_recorded,
            a_submodule_that_is_not_there_is_said_to_be_missing,
            a_submodule_leads_nowhere_else,
            empty_directories_come_with_untracked_files,
            a_message_makes_no_directory_outside,
            a_patch_goes_on_top_of_a_commit,
            copies_share_blocks_where_they_can,
        },
        files::{
            what_is_no_file_is_refused,
            snapshots_carry_everything,
            snapshots_carry_everything_without_an_overlay,
            a_diff_applies,
            files_become_directories_and_back,
            unreadable_files_are_saved_too,
            a_hostile_tree_is_removed,
            forks_hold_what_was_removed_and_replaced,
            copies_start_without_an_index_of_the_user,
        },
        zygote::{
            the_next_sandbox_knows_nothing_of_the_last,
            what_waits_for_the_next_has_only_what_that_asks_for,
        },
        attacks::{
            host_files_are_not_there,
            the_system_is_read_only,
            the_kernel_is_not_configurable,
            there_is_no_network,
            abstract_sockets_of_the_host_are_out_of_reach,
            dangerous_calls_are_denied,
            privileges_are_gone,
            other_processes_are_out_of_reach,
            limits_bind,
            a_fork_bomb_ends_with_its_command,
            an_output_flood_does_not_fill_the_host,
            read_only_paths_are_shown_and_refused,
            landlock_is_in_force,
            a_wall_is_left_out_by_name_only,
            mounts_are_restricted,
        },
        caches::{
            what_a_task_writes_is_its_own,
            what_a_task_writes_is_its_own_without_an_overlay,
            it_is_said_how_a_cache_is_shown,
            a_cache_has_a_place_of_its_own,
            a_wheel_comes_in_if_its_sum_is_listed,
            a_crate_comes_in_if_its_sum_is_listed,
            a_blob_comes_in_where_its_hash_says,
            only_new_plain_files_come_in,
            nobody_vouches_for_what_a_compiler_left,
            promotions_wait_for_each_other,
            a_cache_has_a_bound,
        },
        environments::{
            it_lies_beneath_the_workspace,
            it_lies_beneath_the_workspace_without_an_overlay,
            set_up_sees_what_the_key_covers,
            a_failure_says_why_and_is_not_kept,
            one_of_several_processes_sets_up,
            nothing_half_done_is_left,
            environments_have_a_bound,
            a_virtual_environment_is_shared,
        },
        egress::{
            three_ways_to_an_allowed_host,
            what_is_not_listed_is_refused,
            private_addresses_and_rebinding,
            tls_must_name_the_host,
            there_is_no_other_way,
            it_is_said_what_is_in_force,
        },
        transfer::{
            each_direction_ends_by_itself,
            ten_megabytes_each_way_are_whole,
            many_at_once_and_one_that_does_not_read,
            limits_hold,
            garbage_does_no_harm,
            connections_end_with_their_command,
            nothing_is_left_of_a_transfer,
        },
        hostile::{
            traps_are_not_sprung,
            an_import_springs_none,
            nothing_outside_is_read,
        },
        hosts::{
            twenty_at_once,
            probe_tries_every_layer,
            a_helper_that_is_none_is_an_error,
            a_lost_agent_is_said_to_be_lost,
            nothing_survives_the_host,
        },
        repos::{
            an_import_leaves_the_repository_alone,
            older_revisions_and_subdirectories,
            what_is_no_repository_is_said_clearly,
            commits_are_published_as_new_branches_only,
            bad_names_are_refused,
            attributes_and_filters_run_nothing,
            ignored_files_stay_out_of_patches,
        },
    ];
    trials.extend(hosts::again_trials());
    libtest_mimic::run(&args, trials).exit();
}
