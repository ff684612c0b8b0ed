-- Appending. es.append takes the stream's row, which orders its writers, and
-- stores the whole call or nothing.

-- UPDATE, DELETE and TRUNCATE of what is written once.
create function es.refuse() returns trigger language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  raise exception '% of %.% refused: events are append-only', lower(tg_op), tg_table_schema, tg_table_name
    using errcode = '0A000', hint = 'Append an event that says what changed.';
end $$;

create trigger append_only before update or delete on es.event for each row       execute function es.refuse();
create trigger no_truncate before truncate         on es.event for each statement execute function es.refuse();
create trigger append_only before update or delete on es.log   for each row       execute function es.refuse();
create trigger no_truncate before truncate         on es.log   for each statement execute function es.refuse();
-- Streams are never deleted: their versions would begin again.
create trigger append_only before delete           on es.stream for each row       execute function es.refuse();
create trigger no_truncate before truncate         on es.stream for each statement execute function es.refuse();
-- Always: also where session_replication_role is replica.
alter table es.event  enable always trigger append_only;
alter table es.event  enable always trigger no_truncate;
alter table es.log    enable always trigger append_only;
alter table es.log    enable always trigger no_truncate;
alter table es.stream enable always trigger append_only;
alter table es.stream enable always trigger no_truncate;

-- es.validate refuses an event that its declaration does not allow. This one
-- accepts all; declarations replace it. It is called where types are declared or
-- undeclared ones refused.
create function es.validate(stream text, type text, schema int, data jsonb) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
end $$;

-- es.invalid raises ES422: what can never succeed as it is.
create function es.invalid(path text, message text) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  raise exception '%', message using errcode = 'ES422', detail = pg_catalog.jsonb_build_object('path', path);
end $$;

-- es.check_stream refuses a name that cannot be a stream's. Names are checked when
-- their row is made; a row that is there has a good one.
create function es.check_stream(stream text) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  if stream is null or stream = '' or octet_length(stream) > 512 then
    perform es.invalid('stream', format('a stream''s name has 1 to 512 bytes, not %s', coalesce(octet_length(stream), 0)));
  elsif stream ~ '[\u0001-\u001f\u007f-\u009f]' then
    perform es.invalid('stream', 'a stream''s name has no control characters');
  elsif split_part(stream, '/', 1) !~ '^[A-Za-z0-9._-]{1,100}$' then
    perform es.invalid('stream', format('stream %s: the category, all before the first ''/'', names the topic: write 1 to 100 of letters, digits, ''.'', ''_'' and ''-'' there', to_json(stream)));
  end if;
end $$;

-- es.conflict raises ES409.
create function es.conflict(stream text, expected bigint, actual bigint, message text) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  raise exception '%', message using errcode = 'ES409',
    detail = pg_catalog.jsonb_build_object('stream', stream, 'expected', expected, 'actual', actual);
end $$;

-- es.repeated answers a call whose events, or some of them, are stored: as it was
-- answered the first time where all are, each in its stream and with its type;
-- else ES409.
create function es.repeated(streams text[], expect bigint[], ev_stream text[], ev_id uuid[], ev_type text[])
returns table (stream text, version bigint, duplicate boolean, token uuid) language plpgsql
set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  bad  record;
  last uuid;
begin
  select u.st, u.id, e.stream, e.type, s.version into bad
    from unnest(ev_stream, ev_id, ev_type) with ordinality u(st, id, ty, i)
    left join es.event e on e.id = u.id
    left join es.stream s on s.stream = u.st
   where e.id is null or e.stream <> u.st or e.type <> u.ty
   order by e.id is null, u.i limit 1;
  if found and bad.stream is null then
    perform es.conflict(bad.st, null, coalesce(bad.version, 0),
      format('event %s is not stored, others of the same append are: an append is repeated whole or not at all', bad.id));
  elsif found then
    perform es.conflict(bad.st, null, coalesce(bad.version, 0),
      format('event %s is stored already, in another stream or with another type', bad.id));
  end if;
  -- The last in the log: one that is not numbered yet comes after all that are.
  select u.id into last
    from unnest(ev_id) with ordinality u(id, i) left join es.log l on l.event = u.id
   order by l.pos desc nulls first, u.i desc limit 1;
  return query
    select s.name,
           coalesce(w.version, case when s.x >= 0 then s.x end, t.version, 0),
           true, last
      from unnest(streams, expect) s(name, x)
      left join es.stream t on t.stream = s.name
      left join (select e.stream, max(e.version) as version from es.event e where e.id = any (ev_id) group by 1) w on w.stream = s.name
     order by s.name collate "C";
end $$;

-- es.check_call refuses a call that is no call.
create function es.check_call(streams text[], expect bigint[], ev_stream text[], ev_id uuid[], ev_type text[], ev_data jsonb[],
  ev_meta jsonb[], ev_schema int[], ev_subjects text[]) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
  n   int := cardinality(ev_id);
  bad text;
begin
  if coalesce(cardinality(streams), 0) = 0 then
    raise exception 'streams is empty: name at least one stream' using errcode = '22023';
  elsif cardinality(expect) is distinct from cardinality(streams) then
    raise exception 'expect has % elements and streams %: give one for each stream', coalesce(cardinality(expect), 0), cardinality(streams) using errcode = '22023';
  elsif n is null or cardinality(ev_stream) is distinct from n or cardinality(ev_type) is distinct from n or cardinality(ev_data) is distinct from n
     or cardinality(ev_meta) <> n or cardinality(ev_schema) <> n or cardinality(ev_subjects) <> n then
    raise exception 'the arrays of events differ in length: give one element for each event in all of them' using errcode = '22023';
  elsif array_ndims(streams) > 1 or array_ndims(expect) > 1 or array_ndims(ev_stream) > 1 or array_ndims(ev_id) > 1 or array_ndims(ev_type) > 1
     or array_ndims(ev_data) > 1 or array_ndims(ev_meta) > 1 or array_ndims(ev_schema) > 1 or array_ndims(ev_subjects) > 1 then
    raise exception 'arrays of several dimensions' using errcode = '22023';
  elsif array_position(ev_id, null) is not null then
    raise exception 'an event without an id' using errcode = '22023';
  elsif exists (select from unnest(expect) x where x < -1) then
    raise exception 'expected version below -1: write null for any, 0 for none, -1 for some, or the version' using errcode = '22023';
  end if;
  select min(s) into bad from unnest(streams) s group by s having count(*) > 1 limit 1;
  if found then
    raise exception 'stream % is named twice in one append', to_json(bad) using errcode = '22023';
  end if;
  select i into bad from unnest(ev_id) i group by i having count(*) > 1 limit 1;
  if found then
    raise exception 'event % stands twice in one append', bad using errcode = '22023';
  end if;
  select u into bad from unnest(ev_stream) u where u is null or u <> all (streams) limit 1;
  if found then
    raise exception 'an event goes to stream %, which is not in streams', to_json(bad) using errcode = '22023';
  end if;
end $$;

-- es.check_events refuses events that cannot be stored as they are.
create function es.check_events(max_event int, checked boolean, ev_stream text[], ev_id uuid[], ev_type text[], ev_data jsonb[],
  ev_meta jsonb[], ev_schema int[], ev_subjects text[]) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
  e record;
begin
  select u.*, octet_length(u.da::text) + coalesce(octet_length(u.me::text), 0) as size into e
    from unnest(ev_stream, ev_id, ev_type, ev_data, ev_meta, ev_schema, ev_subjects) with ordinality u(st, id, ty, da, me, sc, su, i)
   where u.ty is null or octet_length(u.ty) not between 1 and 40 or u.ty ~ '[\u0001-\u001f\u007f-\u009f]'
      or u.da is null or jsonb_typeof(u.da) <> 'object' or jsonb_typeof(u.me) <> 'object' or u.sc < 1
      or octet_length(u.da::text) + coalesce(octet_length(u.me::text), 0) > max_event
      or (u.su is not null and (array_ndims(u.su::text[]) > 1 or cardinality(u.su::text[]) > 100
          or exists (select from unnest(u.su::text[]) s where s is null or octet_length(s) not between 1 and 512)))
   order by u.i limit 1;
  if found then
    if e.ty is null or octet_length(e.ty) not between 1 and 40 or e.ty ~ '[\u0001-\u001f\u007f-\u009f]' then
      perform es.invalid('type', format('event %s: a type has 1 to 40 bytes and no control characters', e.id));
    elsif e.da is null or jsonb_typeof(e.da) <> 'object' then
      perform es.invalid('data', format('event %s: data must be a JSON object', e.id));
    elsif jsonb_typeof(e.me) <> 'object' then
      perform es.invalid('meta', format('event %s: meta must be a JSON object', e.id));
    elsif e.sc < 1 then
      perform es.invalid('schema', format('event %s: schema counts from 1', e.id));
    elsif e.size > max_event then
      raise exception 'event % has % bytes of data and meta, at most % are allowed (max_event)', e.id, e.size, max_event using errcode = '54000';
    else
      perform es.invalid('subjects', format('event %s: at most 100 subjects of 1 to 512 bytes', e.id));
    end if;
  end if;
  if checked then
    perform es.validate(u.st, u.ty, coalesce(u.sc, d.schema, 1), u.da)
       from unnest(ev_stream, ev_type, ev_data, ev_schema) with ordinality u(st, ty, da, sc, i)
       left join es.declared d on d.type = u.ty
      order by u.i;
  end if;
end $$;

-- es.lock_streams takes the rows of a call's streams in the order of their names,
-- so that two calls cannot wait for each other: to write, or shared where a stream
-- is only checked. Missing rows are made where they have to hold others off.
create function es.lock_streams(streams text[], expect bigint[], ev_stream text[])
returns table (stream text, version bigint, closed boolean) language plpgsql
set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  s record;
begin
  for s in select u.name, u.x, u.name = any (ev_stream) as written from unnest(streams, expect) u(name, x) order by u.name collate "C" loop
    stream := s.name;
    loop
      if s.written then
        select t.version, t.closed is not null into version, closed from es.stream t where t.stream = s.name for no key update;
      else
        select t.version, t.closed is not null into version, closed from es.stream t where t.stream = s.name for share;
      end if;
      exit when found;
      perform es.check_stream(s.name);
      version := 0;
      closed := false;
      exit when not s.written and s.x is distinct from 0; -- there is nothing to hold
      insert into es.stream values (s.name, 0) on conflict do nothing;
    end loop;
    return next;
  end loop;
end $$;

create function es.append(
  streams text[], expect bigint[],                    -- every stream written or only checked; null any, 0 none, -1 some, n exactly n
  ev_stream text[], ev_id uuid[], ev_type text[], ev_data jsonb[],
  ev_meta jsonb[] default null, ev_schema int[] default null,
  ev_subjects text[] default null                     -- of each event an array's text: '{stu_9}'
) returns table (stream text, version bigint, duplicate boolean, token uuid) language plpgsql
security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  n       int := cardinality(ev_id);
  stored  int;
  max     int;
  checked boolean;
  names   text[];
  base    bigint[];
  bad     record;
begin
  perform es.check_call(streams, expect, ev_stream, ev_id, ev_type, ev_data, ev_meta, ev_schema, ev_subjects);
  select m.max_event, not m.undeclared or exists (select from es.declared),
         (select count(*) from es.event e where e.id = any (ev_id))
    into max, checked, stored from es.meta m;
  if stored > 0 then
    return query select * from es.repeated(streams, expect, ev_stream, ev_id, ev_type);
    return;
  end if;
  select array_agg(l.stream), array_agg(l.version) into names, base from es.lock_streams(streams, expect, ev_stream) l;
  if exists (select from es.event e where e.id = any (ev_id)) then
    return query select * from es.repeated(streams, expect, ev_stream, ev_id, ev_type);
    return;
  end if;
  select t.stream into bad from es.stream t where t.stream = any (ev_stream) and t.closed is not null order by t.stream collate "C" limit 1;
  if found then
    raise exception 'stream % is closed', to_json(bad.stream) using errcode = 'ES410', detail = jsonb_build_object('stream', bad.stream);
  end if;
  select u.name, u.x, l.v into bad from unnest(streams, expect) u(name, x) join unnest(names, base) l(name, v) on l.name = u.name
   where not (u.x is null or u.x = l.v or u.x = -1 and l.v > 0) order by u.name collate "C" limit 1;
  if found then
    perform es.conflict(bad.name, bad.x, bad.v, format('stream %s has version %s, expected was %s', to_json(bad.name), bad.v,
      case bad.x when 0 then 'none' when -1 then 'some' else bad.x::text end));
  end if;
  if n > 0 then
    perform es.check_events(max, checked, ev_stream, ev_id, ev_type, ev_data, ev_meta, ev_schema, ev_subjects);
    insert into es.event (id, stream, version, type, schema, data, meta, subjects)
    select u.id, u.st, l.v + row_number() over (partition by u.st order by u.i), u.ty,
           coalesce(u.sc, d.schema, 1), u.da, coalesce(u.me, '{}'), coalesce(u.su::text[], '{}')
      from unnest(ev_stream, ev_id, ev_type, ev_data, ev_meta, ev_schema, ev_subjects) with ordinality u(st, id, ty, da, me, sc, su, i)
      join unnest(names, base) l(name, v) on l.name = u.st
      left join es.declared d on d.type = u.ty
     order by u.i;
    update es.stream t set version = t.version + c.n
      from (select u, count(*) as n from unnest(ev_stream) u group by u) c where t.stream = c.u;
  end if;
  return query
    select l.name, l.v + (select count(*) from unnest(ev_stream) u where u = l.name), false, ev_id[n]
      from unnest(names, base) l(name, v) order by l.name collate "C";
end $$;

-- The same from JSON: [{"stream", "expect", "events": [{"id", "type", "data", "meta", "schema", "subjects"}]}]
create function es.append(batches jsonb)
returns table (stream text, version bigint, duplicate boolean, token uuid) language plpgsql
security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  streams text[];
  expect  bigint[];
  ev      record;
begin
  if jsonb_typeof(batches) is distinct from 'array' then
    perform es.invalid('batches', 'batches must be a JSON array of {"stream", "expect", "events"}');
  end if;
  select array_agg(b->>'stream' order by i),
         array_agg(case b->>'expect' when 'any' then null when 'none' then 0 when 'some' then -1 else (b->>'expect')::bigint end order by i)
    into streams, expect
    from jsonb_array_elements(batches) with ordinality a(b, i);
  select coalesce(array_agg(b->>'stream' order by i, j), '{}') as stream, coalesce(array_agg((e->>'id')::uuid order by i, j), '{}') as id,
         coalesce(array_agg(e->>'type' order by i, j), '{}') as type, coalesce(array_agg(e->'data' order by i, j), '{}') as data,
         array_agg(nullif(e->'meta', 'null') order by i, j) as meta, array_agg((e->>'schema')::int order by i, j) as schema,
         array_agg(case jsonb_typeof(e->'subjects') when 'array' then (select array_agg(x) from jsonb_array_elements_text(e->'subjects') x)::text end order by i, j) as subjects
    into ev
    from jsonb_array_elements(batches) with ordinality a(b, i),
         jsonb_array_elements(case jsonb_typeof(b->'events') when 'array' then b->'events' else '[]' end) with ordinality c(e, j);
  return query select * from es.append(streams, expect, ev.stream, ev.id, ev.type, ev.data, ev.meta, ev.schema, ev.subjects);
end $$;

-- es.close ends a stream: nothing is appended to it any more. Closing it again
-- changes nothing.
create function es.close(stream text, expect bigint default null) returns void language plpgsql
security definer set search_path = pg_catalog, pg_temp as $$
declare
  v bigint;
  c timestamptz;
begin
  select t.version, t.closed into v, c from es.stream t where t.stream = close.stream for no key update;
  if not found then
    raise exception 'stream % does not exist', to_json(stream) using errcode = 'ES404';
  elsif expect is not null and expect <> v then
    perform es.conflict(stream, expect, v, format('stream %s has version %s, expected was %s', to_json(stream), v, expect));
  elsif c is null then
    update es.stream t set closed = clock_timestamp() where t.stream = close.stream;
  end if;
end $$;

grant execute on function es.append(text[], bigint[], text[], uuid[], text[], jsonb[], jsonb[], int[], text[]) to es_writer;
grant execute on function es.append(jsonb) to es_writer;
grant execute on function es.close(text, bigint) to es_writer;
