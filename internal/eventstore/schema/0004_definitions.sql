-- What the configuration says about events: validation, upcasts, states. Install
-- writes the functions that differ from store to store; their names have a space
-- in them, as in es."validate student-enrolled". The ones here hold where nothing is declared.

-- es.upcast brings the data of an event to the newest schema of its type. This one
-- changes nothing; declarations replace it.
create function es.upcast(type text, schema int, data jsonb, meta jsonb default null, stream text default null, at timestamptz default null)
returns jsonb language sql stable return data;

-- es.upcast_new is es.upcast for an event that is being appended, with the settings
-- that every upcast is run with.
create function es.upcast_new(type text, schema int, data jsonb, meta jsonb, stream text) returns jsonb language plpgsql
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO, MDY' set intervalstyle = 'postgres'
set extra_float_digits = 1 set bytea_output = 'hex' set transform_null_equals = off
as $$
begin
  return es.upcast(type, schema, data, meta, stream, clock_timestamp());
exception when others then
  perform es.invalid('data', format('%s: data of schema %s cannot be brought to the newest: %s', type, schema, sqlerrm));
end $$;

-- es.no_data is called where an upcast gives null.
create function es.no_data(type text, schema int, data jsonb) returns jsonb language plpgsql stable
set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'the upcast of % from schema % gives null: it must give the data of the next schema', type, schema using errcode = '22004';
end $$;

-- es.validate refuses an event that its declaration does not allow. This one
-- accepts all; declarations replace it. It is called where types are declared or
-- undeclared ones refused.
create function es.validate(stream text, type text, schema int, data jsonb, meta jsonb default '{}') returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
end $$;

-- es.admit gives the schema with which an event is stored that is certainly as its
-- declaration wants it, null where es.check_events has to see. It stands for
-- es.validate, es.declared and es.meta where one event is appended: an expression
-- that becomes part of the caller's, with the limits as constants. Install replaces
-- this one, which is of es.meta's defaults. size is that of data and meta.
create function es.admit(stream text, type text, schema int, data jsonb, size int) returns int language sql immutable
return case when size <= 1048576 then coalesce(schema, 1) end;

-- es.is_int says that a number of JSON can be read as bigint: 1e3 can, 1.0 cannot.
create function es.is_int(n numeric) returns boolean language sql immutable
return scale(n) = 0 and n between -9223372036854775808 and 9223372036854775807;

-- es.is_date takes YYYY-MM-DD, a day of the calendar from the year 1 on.
create function es.is_date(d text) returns boolean language sql immutable
return d ~ '^[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|[12][0-9]))$'
   and d !~ '^0000'
   and (right(d, 5) <> '02-29' or left(d, 4)::int % 4 = 0 and (left(d, 4)::int % 100 <> 0 or left(d, 4)::int % 400 = 0));

-- es.is_time takes RFC 3339. Offsets of 16 hours and more Postgres does not know.
create function es.is_time(t text) returns boolean language sql immutable
return t ~* '^.{10}t([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)([.][0-9]{1,9})?(z|[+-](0[0-9]|1[0-5]):[0-5][0-9])$'
   and es.is_date(left(t, 10));

create function es.is_uuid(u text) returns boolean language sql immutable
return u ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$';

-- es.wrong_field raises ES422 for a field that is not as declared. Values are not
-- told: they may be secret, and messages go to logs.
create function es.wrong_field(type text, field text, wanted text, given text) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  perform es.invalid('data.' || field, format('%s: data.%s %s', type, field, case
    when given is null then 'is missing: it must be ' || wanted
    when given = 'value' then 'must be ' || wanted
    when given = 'null' then 'is null: it must be ' || wanted
    else format('must be %s, not %s', wanted, case when given in ('array', 'object') then 'an ' || given else 'a ' || given end) end));
end $$;

-- es.unknown_field raises ES422 for the first of the fields that are not declared.
create function es.unknown_field(type text, unknown jsonb, declared text) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
  field text := (select min(k collate "C") from jsonb_object_keys(unknown) k);
begin
  perform es.invalid('data.' || field, format('%s: data.%s is not declared; declared is %s', type, field, declared));
end $$;

-- es.wrong_stream raises ES422 for an event in another stream than its data says.
create function es.wrong_stream(type text, template text, wanted text, given text) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  perform es.invalid('stream', format('%s: the stream must be %s, which its data make of %s, and not %s', type, to_json(wanted), template, coalesce(to_json(given)::text, 'null')));
end $$;

-- es.state is the state of a stream: of all its events; or up to a version; or up
-- to the last version that was appended at at_time or before. (Clocks may go back:
-- an earlier version with a later time belongs to it all the same, for a state is
-- that of a version.) Of both bounds the earlier holds. A stream without events has
-- version 0 and the initial state. ES404 where its category has none.
--
-- It begins at the snapshot, where there is one of this fold and not later, and
-- leaves one where many events were folded.
create function es.state(stream text, at_version bigint default null, at_time timestamptz default null)
returns table (version bigint, state jsonb) language plpgsql security definer
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO, MDY' set intervalstyle = 'postgres'
set extra_float_digits = 1 set bytea_output = 'hex' set transform_null_equals = off
as $$
#variable_conflict use_column
declare
  of     text := stream;
  upto   bigint;              -- version that is asked for
  folded bigint := 0;         -- version that value is the state of
  value  jsonb;
  fold   record;
  every  int;
begin
  if of is null then
    perform es.invalid('stream', 'the state of which stream?');
  elsif at_version < 0 then
    raise exception 'version % is below 0, the version of a stream without events', at_version using errcode = '22023';
  end if;
  select f.category, f.hash, coalesce(f.definition->'initial', 'null') as initial into fold
    from es.fold f where f.category = split_part(of, '/', 1);
  if not found then
    raise exception 'category % has no state: define one under state', to_json(split_part(of, '/', 1)) using errcode = 'ES404';
  end if;
  -- The version first: every event up to it is visible to what follows.
  upto := coalesce((select least(s.version, at_version) from es.stream s where s.stream = of), 0);
  if at_time is not null then
    upto := coalesce((select e.version from es.event e where e.stream = of and e.version <= upto and e.at <= at_time order by e.version desc limit 1), 0);
  end if;
  if upto > 0 and not pg_is_in_recovery() then -- a standby has no unlogged tables
    select s.version, s.state into folded, value
      from es.snapshot s where s.stream = of and s.fold = fold.category and s.hash = fold.hash and s.version <= upto;
  end if;
  if folded is null or folded = 0 then
    folded := 0;
    value := fold.initial;
  end if;
  if upto > folded then
    execute format('select es.%I($1, $2, $3, $4)', 'state ' || left(encode(fold.hash, 'hex'), 16)) into value using of, folded, upto, value;
    select m.snapshots into every from es.meta m;
    -- Only at READ COMMITTED: above it a row that another has changed would fail
    -- the reader.
    if every > 0 and upto - folded > every and current_setting('transaction_isolation') = 'read committed'
       and not current_setting('transaction_read_only')::boolean then
      perform es.keep_snapshot(of, fold.category, fold.hash, upto, value);
    end if;
  end if;
  return query select upto, value;
end $$;

-- es.keep_snapshot stores a state, unless another transaction is writing the same: a
-- snapshot is worth no waiting, and two transactions that read the states of two
-- streams must not wait for each other.
create function es.keep_snapshot(stream text, fold text, hash bytea, version bigint, state jsonb) returns void language plpgsql
set search_path = pg_catalog, pg_temp set lock_timeout = '1ms'
as $$
begin
  insert into es.snapshot as s values (stream, fold, hash, version, state)
      on conflict on constraint snapshot_pkey
      do update set hash = excluded.hash, version = excluded.version, state = excluded.state
      where s.hash <> excluded.hash or s.version < excluded.version;
exception when lock_not_available or deadlock_detected then
  null;
end $$;

grant execute on function es.no_data(text, int, jsonb) to es_writer, es_reader, es_view;
grant execute on function es.upcast(text, int, jsonb, jsonb, text, timestamptz) to es_writer, es_reader, es_view;
grant execute on function es.state(text, bigint, timestamptz) to es_writer, es_reader;
